"""What a file says about itself: title, author, dates, language.

Dates become ISO 8601, in UTC where the file gives a zone, so that they compare as text. Whatever
can't be read is left out: metadata never fails a document.
"""

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_binary_file
from email.message import Message
from email.policy import default as email_policy
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragcore.adapters.docling.formats import SourceFormat

if TYPE_CHECKING:
    from docling_core.types.doc import DoclingDocument


@dataclass(frozen=True, slots=True)
class Facts:
    """Title and the other facts, under the names they are filtered by."""

    title: str | None = None
    extracted: dict[str, Any] = field(default_factory=dict)


def of_file(path: Path, format: SourceFormat) -> Facts:
    """Return what the file says about itself; empty where the format or the file says nothing."""
    reader = _READERS.get(format)
    if reader is None:
        return Facts()
    try:
        return _clean(reader(path))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, SyntaxError):
        # Damaged metadata in a readable document is common, and says nothing about its text.
        return Facts()


def of_pdf(path: Path, password: str | None = None) -> Facts:
    """Return the document information of a PDF."""
    import pypdfium2

    document = pypdfium2.PdfDocument(path, password=password)
    try:
        found = document.get_metadata_dict(skip_empty=True)
    finally:
        document.close()
    return _clean(
        {
            "title": found.get("Title"),
            "author": found.get("Author"),
            "subject": found.get("Subject"),
            "keywords": found.get("Keywords"),
            "created": pdf_date(found.get("CreationDate", "")),
            "modified": pdf_date(found.get("ModDate", "")),
        }
    )


def first_heading(document: "DoclingDocument") -> str | None:
    """Return the text of the first title or heading, None where there is none."""
    from docling_core.types.doc import SectionHeaderItem, TitleItem

    for item, _ in document.iterate_items():
        if isinstance(item, TitleItem | SectionHeaderItem) and item.text.strip():
            return _shortened(_ANCHOR.sub("", item.text))
    return None


_ANCHOR = re.compile(r"\s*\{\s*#[\w-]+\s*\}\s*$")
"""`{ #about }` behind a Markdown heading names a link target."""


# --- one reader per family of formats ------------------------------------------------------


def _of_ooxml(path: Path) -> dict[str, Any]:
    properties = _xml_texts(path, "docProps/core.xml")
    return {
        "title": properties.get("title"),
        "author": properties.get("creator"),
        "subject": properties.get("subject"),
        "keywords": properties.get("keywords"),
        "language": properties.get("language"),
        "created": iso_date(properties.get("created", "")),
        "modified": iso_date(properties.get("modified", "")),
    }


def _of_odf(path: Path) -> dict[str, Any]:
    properties = _xml_texts(path, "meta.xml")
    return {
        "title": properties.get("title"),
        "author": properties.get("initial-creator") or properties.get("creator"),
        "subject": properties.get("subject"),
        "keywords": properties.get("keyword"),
        "language": properties.get("language"),
        "created": iso_date(properties.get("creation-date", "")),
        "modified": iso_date(properties.get("date", "")),
    }


def _of_epub(path: Path) -> dict[str, Any]:
    container = _member(path, "META-INF/container.xml").decode("utf-8", "replace")
    found = re.search(r'full-path="([^"]+)"', container)
    properties = _xml_texts(path, found.group(1)) if found else {}
    return {
        "title": properties.get("title"),
        "author": properties.get("creator"),
        "subject": properties.get("subject"),
        "language": properties.get("language"),
        "created": iso_date(properties.get("date", "")),
    }


def _of_mail(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        mail: Message = message_from_binary_file(file, policy=email_policy)
    return {
        "title": _header(mail, "Subject"),
        "author": _header(mail, "From"),
        "recipients": _header(mail, "To"),
        "created": _mail_date(_header(mail, "Date")),
    }


_HTML_HEAD = 200_000
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_HTML_LANGUAGE = re.compile(r"<html[^>]*\slang=[\"']?([a-zA-Z-]{2,12})", re.IGNORECASE)
_META = re.compile(r"<meta\s[^>]*>", re.IGNORECASE)
_ATTRIBUTE = re.compile(r"([a-zA-Z:-]+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")


def _of_html(path: Path) -> dict[str, Any]:
    from html import unescape

    with path.open("rb") as file:
        head = file.read(_HTML_HEAD).decode("utf-8", "replace")
    meta: dict[str, str] = {}
    for tag in _META.findall(head):
        attributes = {name.lower(): one or other for name, one, other in _ATTRIBUTE.findall(tag)}
        if key := attributes.get("name") or attributes.get("property"):
            meta.setdefault(key.lower(), unescape(attributes.get("content", "")))
    title, language = _TITLE.search(head), _HTML_LANGUAGE.search(head)
    return {
        "title": meta.get("og:title") or (unescape(title.group(1)) if title else None),
        "author": meta.get("author") or meta.get("article:author"),
        "subject": meta.get("description"),
        "keywords": meta.get("keywords"),
        "language": language.group(1) if language else None,
        "created": iso_date(meta.get("article:published_time", "") or meta.get("date", "")),
        "modified": iso_date(meta.get("article:modified_time", "")),
    }


_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)


def _of_markdown(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        head = file.read(20_000).decode("utf-8", "replace")
    found = _FRONT_MATTER.match(head)
    pairs = re.findall(r"^(\w+):[ \t]*(\S.*)$", found.group(1), re.MULTILINE) if found else []
    fields = {key.lower(): value.strip(" \"'") for key, value in pairs}
    return {
        "title": fields.get("title"),
        "author": fields.get("author"),
        "language": fields.get("lang") or fields.get("language"),
        "created": iso_date(fields.get("date", "")),
    }


_READERS: dict[SourceFormat, Callable[[Path], dict[str, Any]]] = {
    SourceFormat.DOCX: _of_ooxml,
    SourceFormat.PPTX: _of_ooxml,
    SourceFormat.XLSX: _of_ooxml,
    SourceFormat.ODT: _of_odf,
    SourceFormat.ODS: _of_odf,
    SourceFormat.ODP: _of_odf,
    SourceFormat.EPUB: _of_epub,
    SourceFormat.EML: _of_mail,
    SourceFormat.MHTML: _of_mail,
    SourceFormat.HTML: _of_html,
    SourceFormat.MARKDOWN: _of_markdown,
}


# --- values --------------------------------------------------------------------------------

_LARGEST_MEMBER = 4 * 1024 * 1024
_LONGEST = 500


def _member(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive, archive.open(name) as member:
        return member.read(_LARGEST_MEMBER)


def _xml_texts(path: Path, name: str) -> dict[str, str]:
    """Return the first text of each element by its local name. Entities are not expanded."""
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    texts: dict[str, str] = {}
    for element in etree.fromstring(_member(path, name), parser).iter("{*}*"):
        if element.text and element.text.strip():
            texts.setdefault(etree.QName(element).localname, element.text)
    return texts


def _header(mail: Message, name: str) -> str | None:
    value = mail.get(name)
    return str(value) if value is not None else None


def _mail_date(value: str | None) -> str | None:
    try:
        return _iso(parsedate_to_datetime(value)) if value else None
    except ValueError:
        return None


def iso_date(value: str) -> str | None:
    """Return a date as files write it (a year, a day, a moment) in ISO 8601, or None."""
    value = value.strip()
    if re.fullmatch(r"\d{4}(-\d{2})?", value):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment.date().isoformat() if len(value) == len("2026-01-01") else _iso(moment)


_PDF_DATE = re.compile(
    r"D?:?(\d{4})(\d{2})?(\d{2})?(\d{2})?(\d{2})?(\d{2})?(?:([Zz+-])(\d{2})?'?(\d{2})?)?"
)


def pdf_date(value: str) -> str | None:
    """Return a PDF date (`D:20250124135915+03'00'`) in ISO 8601, or None."""
    found = _PDF_DATE.match(value.strip())
    if found is None:
        return None
    year, *rest = (int(part) if part else None for part in found.groups()[:6])
    month, day, hour, minute, second = (
        part if part is not None else start
        for part, start in zip(rest, (1, 1, 0, 0, 0), strict=True)
    )
    sign, hours, minutes = found.group(7), int(found.group(8) or 0), int(found.group(9) or 0)
    offset = timedelta(hours=hours, minutes=minutes) * (-1 if sign == "-" else 1)
    try:
        zone = timezone(offset) if sign else None
        return _iso(datetime(year or 0, month, day, hour, minute, second, tzinfo=zone))
    except ValueError:
        return None


def _iso(moment: datetime) -> str:
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _clean(found: dict[str, Any]) -> Facts:
    """Drop what is empty or made by default, and shorten the rest."""
    kept = {
        key: _shortened(value)
        for key, value in found.items()
        if isinstance(value, str) and value.strip()
    }
    title = kept.pop("title", None)
    if title is not None and _UNTITLED.fullmatch(title):
        title = None
    return Facts(title, {key: value for key, value in kept.items() if value})


_UNTITLED = re.compile(
    r"(untitled|без имени|документ|document|presentation|презентация|powerpoint presentation|"
    r"microsoft word - .*|.*\.(docx?|xlsx?|pptx?|pdf|odt|rtf|indd|tex|dvi))\s*\d*",
    re.IGNORECASE,
)


def _shortened(text: str) -> str:
    collapsed = " ".join(text.replace("\x00", "").split())
    return collapsed if len(collapsed) <= _LONGEST else collapsed[: _LONGEST - 1] + "…"
