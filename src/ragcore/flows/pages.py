"""A page of a document → a picture of it, for whoever follows a citation."""

import asyncio
import tempfile
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

from ragcore.flows.submit import original_key
from ragcore.model import PageImage
from ragcore.ports import BlobStore, PageRenderer

_REMEMBERED_BYTES: Final = 32 * 2**20

_Page = tuple[UUID, int, int]
"""Version, page, dots per inch: what a picture depends on, and nothing else."""


@dataclass(frozen=True, slots=True)
class DrawPage:
    """Draw pages of versions in place. Recent pictures are kept, up to 32 MiB of them.

    A reader turns pages back and forth, and several readers follow the same citation. Pictures of
    a deleted version are not asked for any more, and go with the next ones.
    """

    blobs: BlobStore
    renderer: PageRenderer
    directory: Path
    """Where files of documents are worked on; they are gone when it is."""
    _recent: "OrderedDict[_Page, PageImage]" = field(default_factory=OrderedDict, repr=False)

    async def __call__(self, version_id: UUID, page: int, *, dots_per_inch: int) -> PageImage:
        """Return a page, counted from 1. Raises PageNotFound, BlobNotFound, ConversionError."""
        wanted = (version_id, page, dots_per_inch)
        if (known := self._recent.get(wanted)) is not None:
            self._recent.move_to_end(wanted)
            return known
        image = await self._drawn(version_id, page, dots_per_inch)
        self._remember(wanted, image)
        return image

    async def _drawn(self, version_id: UUID, page: int, dots_per_inch: int) -> PageImage:
        directory = await asyncio.to_thread(
            tempfile.TemporaryDirectory, prefix="page-", dir=self.directory
        )
        try:
            source = Path(directory.name, "original")
            await self.blobs.fetch(original_key(version_id), source)
            return await self.renderer.render(
                source, page=page, dots_per_inch=dots_per_inch, directory=Path(directory.name)
            )
        finally:
            await asyncio.to_thread(directory.cleanup)

    def _remember(self, wanted: _Page, image: PageImage) -> None:
        self._recent[wanted] = image
        total = sum(len(each.png) for each in self._recent.values())
        while total > _REMEMBERED_BYTES:
            _, oldest = self._recent.popitem(last=False)
            total -= len(oldest.png)
