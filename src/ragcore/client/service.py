"""Whether the service lives, whether it is ready, which one it is."""

from dataclasses import replace

from ragcore.client.caller import Caller, get
from ragcore.client.calls import call
from ragcore.client.exchange import Steps
from ragcore.client.retrying import NEVER
from ragcore.client.values import Readiness, ServiceVersion, made


class Service(Caller):
    """The service itself. Asked about its health it is asked once: no answer is an answer."""

    @call
    def live(self) -> Steps[None]:
        """Return when the service's process answers. Raises Unavailable when it does not."""
        yield from self._send(get("/health/live"), retries=NEVER)

    @call
    def ready(self) -> Steps[Readiness]:
        """Tell whether questions can be answered, and the state of each dependency."""
        request = replace(get("/health/ready"), also_expected=frozenset({503}))
        return made(Readiness, (yield from self._told(request, retries=NEVER)))

    @call
    def version(self) -> Steps[ServiceVersion]:
        """Tell the version of the service and its embedding model."""
        return made(ServiceVersion, (yield from self._told(get("/version"))))
