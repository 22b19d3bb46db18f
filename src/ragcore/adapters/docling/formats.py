"""What kind of file this is: by its content; the name only chooses among kinds of text.

Binary kinds are told by their first bytes and, in containers, by what they contain. Text is decoded
first (`encodings`), then its beginning is looked at; a name or MIME type matters only where
the content leaves a choice (Markdown or plain text).
"""

import re
import zipfile
from enum import StrEnum
from pathlib import Path, PurePath

from ragcore.errors import ConversionFailed, PasswordRequired, UnsupportedFormat


class SourceFormat(StrEnum):
    """Every kind of file that can be read; the value is a short, stable name."""

    PDF = "pdf"
    DOCX = "docx"
    PPTX = "pptx"
    XLSX = "xlsx"
    ODT = "odt"
    ODS = "ods"
    ODP = "odp"
    EPUB = "epub"
    IMAGE = "image"
    MSG = "msg"
    DOC = "doc"
    XLS = "xls"
    PPT = "ppt"
    RTF = "rtf"
    EML = "eml"
    MHTML = "mhtml"
    HTML = "html"
    MARKDOWN = "md"
    ASCIIDOC = "asciidoc"
    CSV = "csv"
    VTT = "vtt"
    LATEX = "latex"
    JATS = "jats"
    USPTO = "uspto"
    TEXT = "text"

    @property
    def mime_type(self) -> str:
        return _MIME_TYPES[self]

    @property
    def is_text(self) -> bool:
        """Whether it is handed on as UTF-8 text; mails and RTF declare encodings inside."""
        return self in _TEXT_FORMATS

    @property
    def needs_office(self) -> bool:
        """Whether LibreOffice has to turn it into a newer format first."""
        return self in _OLD_OFFICE


_OOXML = "application/vnd.openxmlformats-officedocument"
_ODF = "application/vnd.oasis.opendocument"
_MIME_TYPES = {
    SourceFormat.PDF: "application/pdf",
    SourceFormat.DOCX: f"{_OOXML}.wordprocessingml.document",
    SourceFormat.PPTX: f"{_OOXML}.presentationml.presentation",
    SourceFormat.XLSX: f"{_OOXML}.spreadsheetml.sheet",
    SourceFormat.ODT: f"{_ODF}.text",
    SourceFormat.ODS: f"{_ODF}.spreadsheet",
    SourceFormat.ODP: f"{_ODF}.presentation",
    SourceFormat.EPUB: "application/epub+zip",
    SourceFormat.IMAGE: "image/*",
    SourceFormat.MSG: "application/vnd.ms-outlook",
    SourceFormat.DOC: "application/msword",
    SourceFormat.XLS: "application/vnd.ms-excel",
    SourceFormat.PPT: "application/vnd.ms-powerpoint",
    SourceFormat.RTF: "application/rtf",
    SourceFormat.EML: "message/rfc822",
    SourceFormat.MHTML: "multipart/related",
    SourceFormat.HTML: "text/html",
    SourceFormat.MARKDOWN: "text/markdown",
    SourceFormat.ASCIIDOC: "text/asciidoc",
    SourceFormat.CSV: "text/csv",
    SourceFormat.VTT: "text/vtt",
    SourceFormat.LATEX: "text/x-tex",
    SourceFormat.JATS: "application/xml",
    SourceFormat.USPTO: "application/xml",
    SourceFormat.TEXT: "text/plain",
}
_TEXT_FORMATS = frozenset(
    {
        SourceFormat.HTML, SourceFormat.MARKDOWN, SourceFormat.ASCIIDOC, SourceFormat.CSV,
        SourceFormat.VTT, SourceFormat.LATEX, SourceFormat.JATS, SourceFormat.USPTO,
        SourceFormat.TEXT,
    }
)  # fmt: skip
_OLD_OFFICE = frozenset({SourceFormat.DOC, SourceFormat.XLS, SourceFormat.PPT, SourceFormat.RTF})


# --- binary formats ------------------------------------------------------------------------

_HEAD_BYTES = 4096
_ZIP, _OLE2 = b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

_IMAGES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"II*\x00": "image/tiff",
    b"MM\x00*": "image/tiff",
}

# Formats whose bytes could pass for text, or deserve a better message than "unknown".
_REFUSED = {
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive",
    b"PK\x05\x06": "an empty zip archive",
    b"SQLite format 3\x00": "a database",
    b"ID3": "sound",
    b"OggS": "sound",
    b"fLaC": "sound",
    b"%!PS": "PostScript",
}


def image_mime_type(head: bytes) -> str | None:
    """Return the MIME type of a picture that can be read, None for anything else."""
    for magic, mime_type in _IMAGES.items():
        if head.startswith(magic):
            return mime_type
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image/webp"
    # "BM" also starts words: the reserved bytes and the header's size make it a bitmap.
    if head.startswith(b"BM") and head[6:10] == bytes(4) and head[14:18] in _BMP_HEADERS:
        return "image/bmp"
    return None


_BMP_HEADERS = {size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)}


def binary_format(path: Path) -> SourceFormat | None:
    """Return the format that the bytes themselves prove; None: it must be text, if anything.

    Raises UnsupportedFormat for a binary format that can't be read, PasswordRequired for an
    encrypted Office file, ConversionFailed for a broken container.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if _is_pdf(head):
        return SourceFormat.PDF
    if head.startswith(_ZIP):
        return _zip_format(path)
    if head.startswith(_OLE2):
        return _ole2_format(path)
    if image_mime_type(head):
        return SourceFormat.IMAGE
    if head.lstrip().startswith(b"{\\rtf"):
        return SourceFormat.RTF
    refuse_unreadable(head)
    return None


def refuse_unreadable(beginning: bytes) -> None:
    """Raise UnsupportedFormat for what can't be a document, whatever follows.

    Takes microseconds: an upload can be refused before it is stored. Needs a few kilobytes, or the
    whole of a smaller file, to tell a program from a word that begins like one.
    """
    head = beginning[:_HEAD_BYTES]
    for magic, description in _REFUSED.items():
        if head.startswith(magic) and not (magic.isalnum() and head.isascii()):
            raise UnsupportedFormat(f"the file is {description}, which can't be read as a document")


_REFUSED_TYPES = ("audio/", "video/", "font/", "model/", "application/javascript",
                  "text/javascript", "text/css", "application/wasm")  # fmt: skip


def refuse_type(mime_type: str | None) -> None:
    """Raise UnsupportedFormat for what its sender says is sound, film, or a part of a page.

    Anything else may be a document: a page of the web often says less of a file than its bytes.
    """
    bare_type = (mime_type or "").partition(";")[0].strip().lower()
    if bare_type.startswith(_REFUSED_TYPES):
        raise UnsupportedFormat(f"{bare_type[:100]!r} can't be read as a document")


def _is_pdf(head: bytes) -> bool:
    """Say whether PDF readers would open it: its mark may follow some junk, but no text."""
    position = head.find(b"%PDF-", 0, 1024 + 5)
    return position == 0 or (position > 0 and not head[:position].strip(b"\xef\xbb\xbf \r\n\t\x00"))


_OPEN_DOCUMENT = {
    b"application/vnd.oasis.opendocument.text": SourceFormat.ODT,
    b"application/vnd.oasis.opendocument.text-template": SourceFormat.ODT,
    b"application/vnd.oasis.opendocument.spreadsheet": SourceFormat.ODS,
    b"application/vnd.oasis.opendocument.spreadsheet-template": SourceFormat.ODS,
    b"application/vnd.oasis.opendocument.presentation": SourceFormat.ODP,
    b"application/vnd.oasis.opendocument.presentation-template": SourceFormat.ODP,
    b"application/epub+zip": SourceFormat.EPUB,
}
_OFFICE_PARTS = {
    "word/": SourceFormat.DOCX,
    "ppt/": SourceFormat.PPTX,
    "xl/": SourceFormat.XLSX,
}


def _zip_format(path: Path) -> SourceFormat:
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            declared = _declared_type(archive) if "mimetype" in names else b""
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise ConversionFailed(f"the file is a broken zip container: {error}") from error
    if declared in _OPEN_DOCUMENT:
        return _OPEN_DOCUMENT[declared]
    if "[Content_Types].xml" in names:
        for folder, source_format in _OFFICE_PARTS.items():
            if any(name.startswith(folder) and name.endswith(".xml") for name in names):
                return source_format
    if "META-INF/container.xml" in names:
        return SourceFormat.EPUB
    raise UnsupportedFormat("the file is a zip archive and no document; send its files one by one")


def _declared_type(archive: zipfile.ZipFile) -> bytes:
    with archive.open("mimetype") as member:
        return member.read(200).strip()


def _ole2_format(path: Path) -> SourceFormat:
    import olefile

    try:
        with olefile.OleFileIO(path) as container:
            streams = {"/".join(entry) for entry in container.listdir()}
    except (OSError, ValueError, IndexError) as error:
        raise ConversionFailed(f"the file is a broken OLE container: {error}") from error
    if "EncryptedPackage" in streams:
        raise PasswordRequired("the Office file is encrypted; save it without a password")
    if "WordDocument" in streams:
        return SourceFormat.DOC
    if streams & {"Workbook", "Book"}:
        return SourceFormat.XLS
    if "PowerPoint Document" in streams:
        return SourceFormat.PPT
    if any(name.startswith("__properties_version1.0") for name in streams):
        return SourceFormat.MSG
    raise UnsupportedFormat(
        "the file is an OLE container, but no Word, Excel, PowerPoint or Outlook document"
    )


def mime_type_of(path: Path, source_format: SourceFormat) -> str:
    """Return the exact MIME type: pictures have several."""
    if source_format is SourceFormat.IMAGE:
        with path.open("rb") as file:
            return image_mime_type(file.read(_HEAD_BYTES)) or source_format.mime_type
    return source_format.mime_type


# --- text formats --------------------------------------------------------------------------

_TEXT_HEAD = 64 * 1024
_SUFFIXES = {
    ".md": SourceFormat.MARKDOWN, ".markdown": SourceFormat.MARKDOWN, ".qmd": SourceFormat.MARKDOWN,
    ".rmd": SourceFormat.MARKDOWN, ".mdx": SourceFormat.MARKDOWN,
    ".adoc": SourceFormat.ASCIIDOC, ".asciidoc": SourceFormat.ASCIIDOC,
    ".asc": SourceFormat.ASCIIDOC,
    ".csv": SourceFormat.CSV, ".tsv": SourceFormat.CSV,
    ".html": SourceFormat.HTML, ".htm": SourceFormat.HTML, ".xhtml": SourceFormat.HTML,
    ".tex": SourceFormat.LATEX, ".latex": SourceFormat.LATEX,
    ".eml": SourceFormat.EML, ".mht": SourceFormat.MHTML, ".mhtml": SourceFormat.MHTML,
    ".txt": SourceFormat.TEXT, ".text": SourceFormat.TEXT, ".log": SourceFormat.TEXT,
}  # fmt: skip
_MIME_HINTS = {
    "text/markdown": SourceFormat.MARKDOWN,
    "text/x-markdown": SourceFormat.MARKDOWN,
    "text/asciidoc": SourceFormat.ASCIIDOC,
    "text/csv": SourceFormat.CSV,
    "text/tab-separated-values": SourceFormat.CSV,
    "text/html": SourceFormat.HTML,
    "application/xhtml+xml": SourceFormat.HTML,
    "application/x-tex": SourceFormat.LATEX,
    "text/x-tex": SourceFormat.LATEX,
    "message/rfc822": SourceFormat.EML,
}


def text_format(text: str, *, filename: str | None, mime_type: str | None) -> SourceFormat:
    """Return the kind of a decoded text, plain text when it is nothing more special.

    Raises UnsupportedFormat for XML of a vocabulary that can't be read.
    """
    head = text[:_TEXT_HEAD].lstrip()
    hint = text_hint(filename, mime_type)
    return _unmistakable(head, hint) or _as_named(head, hint) or _guessed(head)


def text_hint(filename: str | None, mime_type: str | None) -> SourceFormat | None:
    """Return what the name, or else the MIME type, says about a text."""
    suffix = PurePath(filename).suffix.lower() if filename else ""
    bare_type = (mime_type or "").partition(";")[0].strip().lower()
    return _SUFFIXES.get(suffix) or _MIME_HINTS.get(bare_type)


_HTML_START = re.compile(r"(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.I | re.S)
_HTML_TAG = re.compile(r"</?(p|div|span|table|ul|ol|li|h[1-6]|br|a|b|i|em|strong)\b[^>]*>", re.I)
_LATEX_START = re.compile(r"^\s*\\(documentclass|documentstyle|begin\{document\})", re.M)
_XML_ROOT = re.compile(
    r"(?:<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>|\s)*<([A-Za-z_][\w.:-]*)", re.S
)
_USPTO_ROOTS = {
    "us-patent-application", "us-patent-grant", "patdoc", "patent-application-publication",
}  # fmt: skip


def _unmistakable(head: str, hint: SourceFormat | None) -> SourceFormat | None:
    """Kinds that show in the first characters, whatever the name says."""
    if re.match(r"WEBVTT(\s|$)", head):
        return SourceFormat.VTT
    if head.startswith("PATN\n") and "\nWKU" in head[:200]:
        return SourceFormat.USPTO
    if _HTML_START.match(head):
        return SourceFormat.HTML
    if head.startswith(("<?xml", "<!DOCTYPE", "<article")):
        return _xml_format(head, hint)
    if _LATEX_START.search(head) and hint in (None, SourceFormat.LATEX, SourceFormat.TEXT):
        return SourceFormat.LATEX
    return _mail_format(head, hint)


def _xml_format(head: str, hint: SourceFormat | None) -> SourceFormat | None:
    match = _XML_ROOT.match(head)
    root = match[1].lower() if match else ""
    if root == "html":
        return SourceFormat.HTML
    if root in _USPTO_ROOTS:
        return SourceFormat.USPTO
    if root == "article" and re.search(r"<(front|article-meta|body)\b|JATS|NLM//DTD", head):
        return SourceFormat.JATS
    if hint is not None or not head.startswith("<?xml"):
        return None  # a fragment of HTML, or a text about XML
    raise UnsupportedFormat(
        f"XML with the root element {root!r} can't be read: JATS and USPTO can; "
        "convert it to HTML first"
    )


_HEADER = re.compile(r"^([A-Za-z][A-Za-z0-9-]*):[ \t]?\S", re.M)
_MAIL_HEADERS = {
    "from", "to", "cc", "subject", "date", "message-id", "mime-version", "content-type",
    "received", "return-path", "delivered-to", "reply-to", "dkim-signature",
}  # fmt: skip


def _mail_format(head: str, hint: SourceFormat | None) -> SourceFormat | None:
    block = head.partition("\n\n")[0]
    if not _HEADER.match(block):
        return None
    known = {name.lower() for name in _HEADER.findall(block)} & _MAIL_HEADERS
    is_named_so = hint in (SourceFormat.EML, SourceFormat.MHTML)
    if len(known) < (1 if is_named_so else 3) or not (is_named_so or "from" in known):
        return None
    if "multipart/related" in block and (hint is SourceFormat.MHTML or "Saved by" in block):
        return SourceFormat.MHTML
    return SourceFormat.EML


def _as_named(head: str, hint: SourceFormat | None) -> SourceFormat | None:
    """Believe the name where the content does not speak against it."""
    if hint is SourceFormat.HTML and not _HTML_TAG.search(head):
        return SourceFormat.TEXT
    if hint is SourceFormat.LATEX and "\\" not in head:
        return SourceFormat.TEXT
    if hint in (SourceFormat.EML, SourceFormat.MHTML):
        return SourceFormat.TEXT  # `_unmistakable` looked for headers and found none
    return hint


_MARKDOWN_SIGNS = (
    re.compile(r"^#{1,6} \S", re.M),
    re.compile(r"^(```|~~~)", re.M),
    re.compile(r"^\s*[-*+] \S", re.M),
    re.compile(r"\[[^\]\n]+\]\([^)\s]+\)"),
    re.compile(r"^\|?\s*:?-{3,}:?\s*\|", re.M),
    re.compile(r"\*\*\S.*?\S\*\*"),
)
_ASCIIDOC_SIGNS = (re.compile(r"= \S"), re.compile(r"^={2,5} \S", re.M))


def _guessed(head: str) -> SourceFormat:
    """Tell nameless text apart; plain text unless the signs are strong."""
    if len(_HTML_TAG.findall(head[:4096])) >= 3 and head.startswith("<"):
        return SourceFormat.HTML
    if _ASCIIDOC_SIGNS[0].match(head) and _ASCIIDOC_SIGNS[1].search(head):
        return SourceFormat.ASCIIDOC
    if _MARKDOWN_SIGNS[0].search(head) and any(sign.search(head) for sign in _MARKDOWN_SIGNS[1:]):
        return SourceFormat.MARKDOWN
    return SourceFormat.CSV if _is_delimited(head) else SourceFormat.TEXT


def _is_delimited(head: str) -> bool:
    """Say whether every line has the same number, at least one, of one delimiter."""
    lines = [line for line in head.split("\n")[:-1][:50] if line.strip()]
    if len(lines) < 3 or max(map(len, lines)) > 1000:
        return False
    return any(
        lines[0].count(delimiter) > 0 and len({line.count(delimiter) for line in lines}) == 1
        for delimiter in ";\t,"
    )


# --- encodings that text declares of itself ------------------------------------------------

_XML_DECLARATION = re.compile(r"""(<\?xml\b[^>]*?\bencoding\s*=\s*)(["'])([\w.:-]+)\2""")
_HTML_CHARSET = re.compile(r"""<meta\b[^>]*?\bcharset\s*=\s*["']?\s*([\w.:-]+)""", re.I)
_MIME_CHARSET = re.compile(r"""charset\s*=\s*["']?([\w.:-]+)""", re.I)


def declared_encoding(data: bytes, mime_type: str | None) -> str | None:
    """Return the encoding that the sender, an XML declaration or HTML's meta element names."""
    if match := _MIME_CHARSET.search(mime_type or ""):
        return match[1]
    head = data[:_HEAD_BYTES].decode("latin-1")
    if match := _XML_DECLARATION.match(head.lstrip()):
        return match[3]
    match = _HTML_CHARSET.search(head)
    return match[1] if match else None


def as_utf8(text: str, source_format: SourceFormat) -> str:
    """Make a text say that it is UTF-8, so that no parser decodes it by an older declaration."""
    if source_format is SourceFormat.HTML:
        return "\N{BYTE ORDER MARK}" + text  # outranks any meta element
    return _XML_DECLARATION.sub(r"\1\2UTF-8\2", text, count=1)
