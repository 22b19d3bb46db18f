"""How the running API says that it lives and is ready."""

from apis import Api, running_api
from conftest import TestServer
from ragcore.embedded import EmbeddedServers


def test_a_service_that_is_whole_says_so_without_a_key(
    postgres_server: TestServer, migrated_template: str, embedded: EmbeddedServers
) -> None:
    with running_api(
        postgres_server, template=migrated_template, redis_url=embedded.redis_url
    ) as api:
        _check(api)


def _check(api: Api) -> None:
    nobody = {"X-API-Key": ""}
    answer = api.http.get("/health/ready", headers=nobody)
    assert answer.status_code == 200
    names = ("database", "queue", "blob_store", "embedding_model", "disk")
    assert answer.json() == {"status": "ok", "dependencies": dict.fromkeys(names, "ok")}
    assert api.http.get("/health/live", headers=nobody).json() == {"status": "ok"}
    assert api.http.get("/version", headers=nobody).status_code == 401
