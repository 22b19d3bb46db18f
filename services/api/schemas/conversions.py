"""Files as they were understood; nothing of them is stored."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ragcore_api.schemas.values import Box, Out, examples

ConversionFormat = Literal["markdown", "json", "text", "chunks"]


class ConvertedChunkOut(Out):
    """A stretch of the document, as ingestion would cut it."""

    ordinal: int
    text: str
    headings: list[str]
    page: int | None = Field(description="From 1; null where the format has no pages.")
    bbox: Annotated[Box | None, Field(validation_alias="box")] = None
    start: int | None = Field(description="Character span in the document's Markdown.")
    end: int | None
    tokens: int = Field(description="As the embedding model counts them, headings included.")
    language: str | None


class ConvertedOut(Out):
    """A file in the format asked for."""

    model_config = examples(
        {
            "format": "markdown",
            "filename": "timetable.docx",
            "mime_type": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "title": "Timetable",
            "language": "en",
            "pages": None,
            "warnings": [],
            "content": "# Timetable\n\nThe ferry to Vega leaves at noon.",
        }
    )

    format: ConversionFormat
    filename: str | None
    mime_type: str = Field(description="By its content, not by its name.")
    title: str | None
    language: str | None = Field(description="ISO 639-1 code of most of its text.")
    pages: int | None
    warnings: list[str]
    content: str | dict[str, Any] | list[ConvertedChunkOut] = Field(
        description="A text for `markdown` and `text`, the DoclingDocument for `json`, a list for "
        "`chunks`."
    )


class LoadedPageOut(Out):
    """A page as LangChain's documents are told, which Open WebUI takes."""

    model_config = examples(
        {
            "page_content": "# Timetable\n\nThe ferry to Vega leaves at noon.",
            "metadata": {"title": "Timetable", "language": "en", "source": "a.pdf", "page": 0},
        }
    )

    page_content: str = Field(description="Markdown.")
    metadata: dict[str, Any] = Field(
        description="`title`, `language`, `source` (the file's name) and `page`, from 0, as far as "
        "they are known."
    )
