"""Trace ids that say of themselves that they come from here, and when."""

import hashlib
import hmac
import os
import time
from datetime import UTC, datetime
from typing import Final

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from ragcore.errors import TraceNotFound

_SECONDS_BYTES: Final = 4
_RANDOM_BYTES: Final = 6
_SEAL_BYTES: Final = 6


class SealedIds(RandomIdGenerator):
    """Makes trace ids of a time, 48 random bits and a seal over both.

    Without the key nobody can make one, so whoever names a sealed id was shown an answer, or told
    of one by somebody who was. Nothing is stored for that, and every process with the same key
    knows the ids of the others. The seal comes last: samplers go by the last bits of an id, and
    those of a seal are as even as random ones.
    """

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"ragcore trace ids\0" + secret.encode()).digest()

    def generate_trace_id(self) -> int:
        seconds = int(time.time()) % 2 ** (8 * _SECONDS_BYTES)
        sealed = seconds.to_bytes(_SECONDS_BYTES, "big") + os.urandom(_RANDOM_BYTES)
        return int.from_bytes(sealed + self._seal(sealed), "big")

    def is_trace_id_random(self) -> bool:
        return False

    def made_at(self, trace_id: str) -> datetime:
        """Return the second at which an id was made. Raises TraceNotFound for one of elsewhere."""
        try:
            raw = bytes.fromhex(trace_id)
        except ValueError:
            raw = b""
        sealed, seal = raw[:-_SEAL_BYTES], raw[-_SEAL_BYTES:]
        if len(raw) != 16 or not hmac.compare_digest(seal, self._seal(sealed)):
            raise TraceNotFound(
                f"no answer given here has the trace id {trace_id[:32]!r}: send the `trace_id` of "
                "an answer as it is"
            )
        return datetime.fromtimestamp(int.from_bytes(sealed[:_SECONDS_BYTES], "big"), UTC)

    def _seal(self, sealed: bytes) -> bytes:
        return hmac.digest(self._key, sealed, "sha256")[:_SEAL_BYTES]
