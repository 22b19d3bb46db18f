"""The whole OpenAPI document against the running API: what is promised is what is answered.

No 5xx, no status that is not documented, no answer of another shape. `SCHEMATHESIS_EXAMPLES` asks
for more examples of each operation than CI has time for.
"""

import os
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    ignored_auth,
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)

from apis import ADMIN, Api, running_api
from conftest import TestServer
from ragcore.embedded import EmbeddedServers
from ragcore.settings import Settings
from ragcore_api.main import create_app

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "10"))

NOT_MEANT = [
    # `/documents/delete` is also the path of a document named so.
    allow_header_conformance,
    unsupported_method,
    ignored_auth,  # it adds a wrong key to the right one that is shown
    negative_data_rejection,  # of a parameter that is repeated, the last one counts
    positive_data_acceptance,  # filters, names and dates follow rules that no schema can tell
]

schema = schemathesis.openapi.from_dict(
    create_app(Settings()).openapi(), config=SchemathesisConfig.from_dict({"seed": 1})
)


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer, migrated_template: str, embedded: EmbeddedServers
) -> Iterator[Api]:
    with running_api(
        postgres_server, template=migrated_template, redis_url=embedded.redis_url
    ) as api:
        api.ingest("On Sundays the last ferry leaves at 21:40.", document_id="ferry")
        yield api


# The API runs in another thread of this process, and may use `random` as it likes.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize="SCHEMATHESIS_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_an_operation_keeps_what_its_documentation_promises(
    case: schemathesis.Case, api: Api
) -> None:
    if case.query and "wait" in case.query:
        case.query["wait"] = 0  # nobody works here: it would only take the time
    case.call_and_validate(
        base_url=api.url, headers={"X-API-Key": ADMIN}, timeout=60, excluded_checks=NOT_MEANT
    )
