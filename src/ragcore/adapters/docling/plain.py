"""Plain text as a DoclingDocument: one item per paragraph, nothing interpreted.

Docling has no such format; it takes .txt for Markdown, which loses `#` and `*` and joins lines.
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from docling_core.types.doc import DoclingDocument

_BLANK_LINES = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")


def document_of_text(text: str, *, name: str) -> "DoclingDocument":
    """Return a document with the paragraphs of `text`, each with its own line breaks."""
    from docling_core.types.doc import DocItemLabel, DoclingDocument

    document = DoclingDocument(name=name)
    for paragraph in paragraphs(text):
        document.add_text(label=DocItemLabel.TEXT, text=paragraph)
    return document


def paragraphs(text: str) -> Iterator[str]:
    """Yield what stands between blank lines, without the blank space around it."""
    for part in _BLANK_LINES.split(text.replace("\r\n", "\n").replace("\r", "\n")):
        if stripped := part.strip("\n").rstrip():
            yield stripped
