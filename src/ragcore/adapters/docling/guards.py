"""Checks on a file before Docling sees it: each refuses in milliseconds what would cost minutes.

They are the polite half of the protection; the rough half is the limit on the child's time and
memory, which also holds for what no check foresees.
"""

import re
import warnings
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from ragcore.adapters.docling.formats import SourceFormat
from ragcore.adapters.docling.options import ConversionOptions
from ragcore.errors import ConversionFailed, DocumentTooLarge, PasswordRequired

if TYPE_CHECKING:
    import olefile

_MIB = 1024 * 1024

_ZIPPED = frozenset(
    {
        SourceFormat.DOCX, SourceFormat.PPTX, SourceFormat.XLSX, SourceFormat.ODT,
        SourceFormat.ODS, SourceFormat.ODP, SourceFormat.EPUB,
    }
)  # fmt: skip


def check_size(path: Path, options: ConversionOptions) -> None:
    """Raise DocumentTooLarge for a file over the limit."""
    size = path.stat().st_size
    if size > options.max_file_mb * _MIB:
        raise DocumentTooLarge(
            f"the file has {size / _MIB:.0f} MiB, the limit is {options.max_file_mb} MiB"
        )


def check_binary(
    path: Path, source_format: SourceFormat, options: ConversionOptions, *, password: str | None
) -> None:
    """Raise DocumentTooLarge, PasswordRequired or ConversionFailed, each in its own case."""
    if source_format in _ZIPPED:
        check_zip(path)
    elif source_format is SourceFormat.PDF:
        check_pdf(path, max_pages=options.max_pages, password=password)
    elif source_format is SourceFormat.IMAGE:
        check_image(path, megapixels=options.max_image_megapixels, max_pages=options.max_pages)
    elif source_format in (SourceFormat.DOC, SourceFormat.XLS, SourceFormat.PPT):
        check_ole2(path)


# --- zip containers ------------------------------------------------------------------------

_MOST_MEMBERS = 20_000
_LARGEST_MEMBER = 256 * _MIB
_LARGEST_EXPANSION = 1024 * _MIB
_SUSPICIOUS_MEMBER, _HIGHEST_RATIO = 16 * _MIB, 100
"""Office XML shrinks 10 to 30 times; only repetition made on purpose shrinks more."""


def check_zip(path: Path) -> None:
    """Refuse bombs and encrypted members by the container's directory, unpacking nothing.

    The directory can lie about sizes, but then Python's zipfile stops reading at the lie.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            manifest = _open_document_manifest(archive)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise ConversionFailed(f"the file is a broken zip container: {error}") from error
    if any(member.flag_bits & 1 for member in members) or b"encryption-data" in manifest:
        raise PasswordRequired("the document is encrypted; save it without a password")
    if any(member.filename == "META-INF/rights.xml" for member in members):
        raise PasswordRequired("the book is protected by DRM; use a copy without it")
    if len(members) > _MOST_MEMBERS:
        raise DocumentTooLarge(
            f"the container holds {len(members)} files, the limit is {_MOST_MEMBERS}"
        )
    for member in members:
        _check_member(member)
    total = sum(member.file_size for member in members)
    if total > _LARGEST_EXPANSION:
        raise DocumentTooLarge(
            f"the container unpacks to {total // _MIB} MiB, "
            f"the limit is {_LARGEST_EXPANSION // _MIB} MiB"
        )


def _open_document_manifest(archive: zipfile.ZipFile) -> bytes:
    if "META-INF/manifest.xml" not in archive.namelist():
        return b""
    with archive.open("META-INF/manifest.xml") as member:
        return member.read(_MIB)


def _check_member(member: zipfile.ZipInfo) -> None:
    size, packed = member.file_size, max(member.compress_size, 1)
    is_bomb = size > _SUSPICIOUS_MEMBER and size / packed > _HIGHEST_RATIO
    if size > _LARGEST_MEMBER or is_bomb:
        raise DocumentTooLarge(
            f"{member.filename!r} in the container unpacks to {size // _MIB} MiB, "
            f"{size // packed} times its packed size; save the document anew or split it"
        )


# --- OLE2 containers -----------------------------------------------------------------------

_WORD_ENCRYPTED = 0x0100
_EXCEL_FILEPASS = b"\x2f\x00"


def check_ole2(path: Path) -> None:
    """Raise PasswordRequired for an encrypted DOC, XLS or PPT."""
    import olefile

    with olefile.OleFileIO(path) as container:
        is_encrypted = (
            (container.exists("WordDocument") and _is_encrypted_word(container))
            or (container.exists("Workbook") and _is_encrypted_excel(container))
            or container.exists("EncryptedSummary")
        )
    if is_encrypted:
        raise PasswordRequired("the document is encrypted; save it without a password")


def _is_encrypted_word(container: "olefile.OleFileIO") -> bool:
    flags = container.openstream("WordDocument").read(12)[10:12]
    return bool(int.from_bytes(flags, "little") & _WORD_ENCRYPTED)


def _is_encrypted_excel(container: "olefile.OleFileIO") -> bool:
    """Look for the FILEPASS record: it directly follows the first one, or a few others."""
    stream = container.openstream("Workbook").read(512)
    position = 0
    while position + 4 <= len(stream):
        if stream[position : position + 2] == _EXCEL_FILEPASS:
            return True
        position += 4 + int.from_bytes(stream[position + 2 : position + 4], "little")
    return False


# --- PDF -----------------------------------------------------------------------------------


def check_pdf(path: Path, *, max_pages: int, password: str | None) -> int:
    """Return the number of pages. Raises PasswordRequired, DocumentTooLarge, ConversionFailed."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path, password=password)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise PasswordRequired(
                "the PDF is encrypted; give its password, or save it without one"
            ) from error
        raise ConversionFailed(f"the PDF is damaged: {error}") from error
    try:
        pages = len(document)
    finally:
        document.close()
    if pages == 0:
        raise ConversionFailed("the PDF is damaged: it has no pages")
    if pages > max_pages:
        raise DocumentTooLarge(f"the PDF has {pages} pages, the limit is {max_pages}; split it")
    return pages


# --- pictures ------------------------------------------------------------------------------


def check_image(path: Path, *, megapixels: int, max_pages: int) -> None:
    """Refuse a picture by the size in its header, decoding nothing."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                frames = getattr(image, "n_frames", 1)
    except Image.DecompressionBombError as error:
        raise DocumentTooLarge(f"the picture is too large: {error}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ConversionFailed(f"the picture is damaged: {error}") from error
    if width * height > megapixels * 1_000_000:
        raise DocumentTooLarge(
            f"the picture has {width} x {height} pixels, the limit is {megapixels} million"
        )
    if frames > max_pages:
        raise DocumentTooLarge(f"the picture has {frames} pages, the limit is {max_pages}")


def limit_pictures(megapixels: int) -> None:
    """Make Pillow refuse larger pictures inside documents too (it refuses at twice its limit)."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = megapixels * 1_000_000 // 2
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


# --- text ----------------------------------------------------------------------------------


def check_text(text: str, source_format: SourceFormat) -> None:
    """Raise ConversionFailed for nesting that would exhaust the parser's recursion."""
    if source_format is SourceFormat.MARKDOWN:
        _check_depth(_quote_depth(text))
    if source_format in (SourceFormat.HTML, SourceFormat.MARKDOWN):
        _check_depth(_tag_depth(text))
    if source_format in (SourceFormat.JATS, SourceFormat.USPTO):
        _check_entities(text)
        _check_depth(_tag_depth(text))


_DEEPEST = 200
"""Real pages stay under 60; Docling's recursion gives out at about 300, after burning seconds."""


def _check_depth(depth: int) -> None:
    if depth > _DEEPEST:
        raise ConversionFailed(
            f"the document nests elements {depth} deep, the limit is {_DEEPEST}; simplify it"
        )


def _quote_depth(text: str) -> int:
    return max((quotes.count(">") for quotes in _QUOTES.findall(text)), default=0)


_QUOTES = re.compile(r"^[ \t]*((?:>[ \t]?)+)", re.M)

_MARKUP = re.compile(
    r"<!--.*?-->|<!\[CDATA\[.*?\]\]>|<(script|style)\b.*?</\1\s*>"
    r"|<(?P<end>/?)(?P<name>[A-Za-z][\w:.-]*)[^<>]*?(?P<empty>/?)>",
    re.I | re.S,
)
# Tags that HTML lets an author leave open; counting them would find depth where there is none.
_OFTEN_OPEN = frozenset(
    {
        "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source",
        "track", "wbr", "p", "li", "dt", "dd", "td", "th", "tr", "thead", "tbody", "tfoot",
        "option", "optgroup", "colgroup", "rt", "rp",
    }
)  # fmt: skip


def _tag_depth(text: str) -> int:
    """Return how deep tags nest, in one pass over the text and without recursion."""
    depth = deepest = 0
    unclosed: Counter[str] = Counter()
    for match in _MARKUP.finditer(text):
        name = (match["name"] or "").lower()
        if not name or name in _OFTEN_OPEN or match["empty"]:
            continue
        if not match["end"]:
            unclosed[name] += 1
            depth += 1
            deepest = max(deepest, depth)
        elif unclosed[name]:
            unclosed[name] -= 1
            depth -= 1
    return deepest


_ENTITY = re.compile(r"<!ENTITY\s[^>]*>", re.I)


def _check_entities(text: str) -> None:
    """Refuse entities of the document's own: they expand without end, or name local files.

    Entities with NDATA only name a picture of a patent and are never expanded.
    """
    for declaration in _ENTITY.findall(text):
        if not re.search(r"\sNDATA\s", declaration):
            raise ConversionFailed(
                f"the document declares an XML entity ({declaration[:80]!r}), which is not read "
                "for safety; expand the entities first"
            )
