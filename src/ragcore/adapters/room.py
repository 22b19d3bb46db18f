"""Room on the disk: documents are refused before it is full, so that answers go on."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from ragcore.errors import StorageFull

_REMEMBERED_SECONDS = 1.0

log = logging.getLogger(__name__)


def free_bytes(path: Path) -> int:
    """Return the bytes that are free on the disk of a folder, which need not be made yet."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


class Room:
    """Says whether documents may be taken: `min_free_bytes` of the disk must stay free.

    The disk is asked at most once a second, so that it may be asked for every document.
    """

    def __init__(
        self,
        path: Path,
        *,
        min_free_bytes: int,
        measure: Callable[[Path], int] = free_bytes,
        remembered_seconds: float = _REMEMBERED_SECONDS,
    ) -> None:
        self._path = path.absolute()
        self._min_free_bytes = min_free_bytes
        self._measure = measure
        self._remembered_seconds = remembered_seconds
        self._free = 0
        self._measured_at = float("-inf")

    @property
    def free_bytes(self) -> int:
        now = monotonic()
        if now - self._measured_at > self._remembered_seconds:
            self._free = self._measure(self._path)
            self._measured_at = now
        return self._free

    def require(self, expected_bytes: int = 0) -> None:
        """Raise StorageFull when so many bytes more would leave too little room.

        A limit of 0 lets everything through.
        """
        if self._min_free_bytes and self.free_bytes - expected_bytes < self._min_free_bytes:
            raise StorageFull(
                f"only {self.free_bytes // 2**20} MiB are free on the disk of the data directory "
                f"and {self._min_free_bytes // 2**20} must stay free: documents are taken again "
                "when there is room; questions are answered"
            )
