"""How a Langfuse server is reached."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ragcore.errors import MissingExtra, NotConfigured, Rejected, Unavailable

if TYPE_CHECKING:
    from langfuse.api import LangfuseAPI

ONCE: Final[Any] = {"max_retries": 0}
"""Options of a request that is not repeated by the SDK: who sends it knows whether and when."""
_PASSING: Final = (408, 425, 429)
"""Refusals after which the same request may succeed."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Address and keys of one project on one server."""

    url: str
    public_key: str
    secret_key: str = field(repr=False)
    timeout_seconds: float = 5.0
    """Limit of connecting, and of each silence of the server."""

    def __post_init__(self) -> None:
        if not self.public_key:
            raise NotConfigured(
                "Langfuse's secret key comes with a public one: set RAGCORE_LANGFUSE__PUBLIC_KEY"
            )

    @contextmanager
    def api(self) -> "Iterator[LangfuseAPI]":
        """Open a client that blocks: for a thread. Raises MissingExtra."""
        with installed():
            import httpx
            from langfuse.api import LangfuseAPI
        with httpx.Client(timeout=self.timeout_seconds) as client:
            yield LangfuseAPI(
                base_url=self.url.rstrip("/"),
                username=self.public_key,
                password=self.secret_key,
                x_langfuse_sdk_name="python",
                x_langfuse_public_key=self.public_key,
                httpx_client=client,
            )

    def project_name(self) -> str:
        """Return the name of the keys' project. Raises Unavailable, Rejected, MissingExtra."""
        with self.api() as api, translated():
            found = api.projects.get(request_options=ONCE)
        return found.data[0].name if found.data else "none"


@contextmanager
def installed() -> Iterator[None]:
    """Raise MissingExtra for what can't be imported inside the block."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(f"Langfuse needs `pip install 'ragcore[langfuse]'`: {error}") from error


@contextmanager
def translated() -> Iterator[None]:
    """Raise Unavailable for a server that is away or fails, Rejected for one that refuses."""
    from httpx import HTTPError
    from langfuse.api.core import ApiError
    from pydantic import ValidationError

    try:
        yield
    except ApiError as error:
        status = error.status_code or 0
        if status in (401, 403):
            raise Rejected("Langfuse refuses the keys: correct RAGCORE_LANGFUSE__…") from error
        if 400 <= status < 500 and status not in _PASSING:
            raise Rejected(f"Langfuse refuses the request with {status}") from error
        raise Unavailable(f"Langfuse failed with {status or 'no status'}") from error
    except (HTTPError, OSError, ValidationError, ValueError) as error:
        raise Unavailable(f"Langfuse did not answer: {error!r}"[:300]) from error
