"""Pages as pictures, drawn by children that live for one page.

PDFium is C++ and the files are anybody's: a crash, an endless loop or a flood of memory ends a
child, not the service. A fresh one for each page keeps nothing of the file before.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from ragcore.adapters.docling.processes import child_environment
from ragcore.errors import (
    ConversionError,
    ConversionFailed,
    ConversionTimeout,
    PageNotFound,
    PasswordRequired,
    UnsupportedFormat,
)
from ragcore.model import PageImage

_CHILD = "ragcore.adapters.docling.rendering_child"
_ERRORS = {
    error.__name__: error
    for error in (
        ConversionFailed, ConversionTimeout, PageNotFound, PasswordRequired, UnsupportedFormat,
    )
}  # fmt: skip
_LONGEST_REPLY = 64 * 1024


class PageRenderer:
    """`ports.PageRenderer`: at most `processes` children at a time; further calls queue."""

    def __init__(
        self,
        *,
        processes: int = 2,
        timeout_seconds: float = 20.0,
        memory_mb: int = 1024,
        max_image_megapixels: int = 100,
    ) -> None:
        self._free = asyncio.Semaphore(processes)
        self._timeout_seconds = timeout_seconds
        self._memory_mb = memory_mb
        self._max_image_megapixels = max_image_megapixels

    async def render(
        self, path: Path, *, page: int, dots_per_inch: int, directory: Path
    ) -> PageImage:
        target = directory / "page.png"
        async with self._free:
            told = await self._ask(path.absolute(), target.absolute(), page, dots_per_inch)
        if "error" in told:
            raise _ERRORS.get(told["error"], ConversionFailed)(told["message"])
        png = await asyncio.to_thread(target.read_bytes)
        return PageImage(png=png, width=told["width"], height=told["height"])

    async def _ask(self, path: Path, target: Path, page: int, dots_per_inch: int) -> dict[str, Any]:
        lifeline_end, lifeline = os.pipe()  # closes with us, however we die, and ends the child
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", _CHILD, str(lifeline_end), str(self._memory_mb)),
                *(str(self._max_image_megapixels), str(path), str(target)),
                *(str(page), str(dots_per_inch)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=(lifeline_end,),
                start_new_session=True,
                env=child_environment(os.environ),
            )
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    return await _reply_of(process)
            except TimeoutError:
                raise ConversionTimeout(
                    f"drawing page {page} took longer than {self._timeout_seconds:g} s"
                ) from None
            finally:
                _kill(process)
                await process.wait()
        finally:
            os.close(lifeline_end)
            os.close(lifeline)


async def _reply_of(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Return the child's last words. Raises ConversionError when there are none."""
    assert process.stdout is not None
    words = await process.stdout.read(_LONGEST_REPLY)
    while piece := await process.stdout.read(_LONGEST_REPLY):
        words = (words + piece)[-_LONGEST_REPLY:]
    try:
        told: dict[str, Any] = json.loads(words)
    except ValueError:
        raise _death(await process.wait()) from None
    return told


def _death(status: int) -> ConversionError:
    how = f"crashed ({signal.Signals(-status).name})" if status < 0 else f"ended with {status}"
    return ConversionFailed(f"the process drawing the page {how}; the file may be damaged")


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
