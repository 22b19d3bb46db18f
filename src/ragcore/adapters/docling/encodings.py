"""Bytes of unknown encoding → text, without mojibake.

Order of trust: a byte order mark, UTF-16 without one where its pattern is unmistakable, valid
UTF-8, what the file declares of itself, the Cyrillic single-byte encodings judged by Russian letter
frequencies, the Latin ones by their letters, then charset-normalizer (on a page or less it takes
French for Polish, hence the judging). Text that passes for no encoding is no text.
"""

import codecs
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ragcore.errors import UnsupportedFormat

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: it starts with the same two bytes
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_SAMPLE_BYTES = 64 * 1024

MOST_CONTROLS = 0.08
"""Share of control bytes up to which undeclared bytes may be text; random bytes hold 0.11."""


@dataclass(frozen=True, slots=True)
class DecodedText:
    """Text, where it came from, and how much of it is not what the file said."""

    text: str
    encoding: str
    replaced: int
    """Characters dropped (controls, noncharacters) or already U+FFFD."""


def decode(data: bytes, *, declared: str | None = None) -> DecodedText:
    """Decode a whole text file and clean it.

    `declared` is what the file or its sender says; it is believed when it decodes without an error
    and does not contradict the letters. Raises UnsupportedFormat when this is no text.
    """
    encoding, mark = detect(data, declared=declared)
    return clean(data[mark:].decode(encoding, errors="replace"), encoding)


def detect(data: bytes, *, declared: str | None = None) -> tuple[str, int]:
    """Return the encoding and the length of the byte order mark. Raises UnsupportedFormat."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return encoding, len(mark)
    if utf16 := _unmarked_utf16(data[:_SAMPLE_BYTES]):
        return utf16, 0
    controls = _share_of_controls(data[:_SAMPLE_BYTES])
    if _is_utf8(data) and controls < 4 * MOST_CONTROLS:
        return "utf-8", 0
    if controls > MOST_CONTROLS:
        raise UnsupportedFormat(
            "the bytes are neither a known document format nor text; "
            "convert the file to PDF, DOCX, HTML or plain text first"
        )
    return _single_or_multibyte(data, declared), 0


_TEXT_CONTROLS = b"\t\n\f\r\x1b"
_CONTROLS = bytes(code for code in range(32) if code not in _TEXT_CONTROLS) + b"\x7f"


def _share_of_controls(sample: bytes) -> float:
    return 1 - len(sample.translate(None, delete=_CONTROLS)) / len(sample) if sample else 0.0


# --- Unicode -------------------------------------------------------------------------------


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _unmarked_utf16(sample: bytes) -> str | None:
    """Recognise UTF-16 by the high bytes of Latin (00) and Cyrillic (04) text, where certain."""
    pairs = len(sample) // 2
    if pairs < 8:
        return None
    for encoding, first in (("utf-16-le", 1), ("utf-16-be", 0)):
        high, low = sample[first : 2 * pairs : 2], sample[1 - first : 2 * pairs : 2]
        plain = (high.count(0x00) + high.count(0x04)) / pairs
        if plain > 0.9 and low.count(0x00) < 0.02 * pairs and low.count(0x04) < 0.1 * pairs:
            return encoding
    return None


# --- declared, Cyrillic, others ------------------------------------------------------------


def _single_or_multibyte(data: bytes, declared: str | None) -> str:
    sample = b"\n".join(_lines_beyond_ascii(data))[:_SAMPLE_BYTES]
    if _is_damaged_utf8(sample):
        return "utf-8"
    cyrillic = _cyrillic(sample)
    if declared and _decodes(data, declared) and not (cyrillic and _is_western(declared)):
        return "cp1252" if _is_western(declared) else codecs.lookup(declared).name
    if found := cyrillic or _latin(sample):
        return found
    if _count_beyond_ascii(sample) < _FEW:
        return "utf-8"  # too few to tell a language by: they count as damage
    return _by_charset_normalizer(sample) or "cp1252"


_FEW = 8


def _lines_beyond_ascii(data: bytes) -> Iterable[bytes]:
    return (line for line in data.splitlines() if not line.isascii())


def _count_beyond_ascii(sample: bytes) -> int:
    return sum(byte > 0x7F for byte in sample)


def _is_damaged_utf8(sample: bytes) -> bool:
    """Say whether this is UTF-8 in which single bytes were destroyed.

    Legacy text holds hardly any valid sequence of several bytes; damaged UTF-8 hardly anything
    else.
    """
    text = sample.decode("utf-8", errors="replace")
    valid = sum(1 for character in text if character > "\x7f" and character != "�")
    return valid > 4 * text.count("�")


def _decodes(data: bytes, encoding: str) -> bool:
    """Say whether this is the name of a character set that holds ASCII and fits the data."""
    if _codec_name(encoding) not in _BELIEVABLE:
        return False
    try:
        data.decode(encoding)
    except UnicodeError:
        return False
    return True


def _codec_name(encoding: str) -> str | None:
    try:
        return codecs.lookup(encoding).name
    except (LookupError, ValueError):
        return None


# Python also decodes `rot13`, `punycode` or `unicode_escape`; no document is written in those.
_BELIEVABLE = frozenset(
    codecs.lookup(name).name
    for name in (
        "ascii", "utf-8", "big5", "big5hkscs", "euc-jp", "euc-kr", "gb2312", "gbk", "gb18030",
        "iso2022-jp", "koi8-r", "koi8-u", "koi8-t", "mac-cyrillic", "mac-roman", "ptcp154",
        "shift-jis", "tis-620", "cp437", "cp737", "cp775", "cp850", "cp852", "cp855", "cp857",
        "cp866", "cp874", "cp932", "cp949", "cp950", *(f"cp{page}" for page in range(1250, 1259)),
        *(f"iso8859-{part}" for part in (*range(1, 12), *range(13, 17))),
    )
)  # fmt: skip


def _is_western(encoding: str) -> bool:
    """Name the encodings that decode anything, and that much Russian text wrongly claims.

    Where the claim stands, browsers read all of them as cp1252, which adds quotes and dashes.
    """
    return _codec_name(encoding) in {"iso8859-1", "iso8859-15", "cp1252", "ascii"}


_CYRILLIC_ENCODINGS = ("cp1251", "koi8-r", "cp866", "iso8859-5", "koi8-u", "mac-cyrillic")

# Per cent of letters in Russian prose (Lyashevskaya, Sharov 2009); the letters of other Cyrillic
# alphabets get a small share so that Ukrainian or Serbian text is not refused.
_RUSSIAN_LETTERS = {
    "о": 10.97, "е": 8.45, "а": 8.01, "и": 7.35, "н": 6.70, "т": 6.26, "с": 5.47, "р": 4.73,
    "в": 4.54, "л": 4.40, "к": 3.49, "м": 3.21, "д": 2.98, "п": 2.81, "у": 2.62, "я": 2.01,
    "ы": 1.90, "ь": 1.74, "г": 1.70, "з": 1.65, "б": 1.59, "ч": 1.44, "й": 1.21, "х": 0.97,
    "ж": 0.94, "ш": 0.73, "ю": 0.64, "ц": 0.48, "щ": 0.36, "э": 0.32, "ф": 0.26, "ъ": 0.04,
    "ё": 0.30, "і": 0.5, "ї": 0.2, "є": 0.2, "ґ": 0.02, "ў": 0.1, "ј": 0.1, "љ": 0.05, "њ": 0.05,
    "ћ": 0.05, "ђ": 0.05, "џ": 0.02, "ќ": 0.02, "ѓ": 0.02, "ѕ": 0.02,
}  # fmt: skip
_LETTER_SCORE = {letter: math.log(share / 100) for letter, share in _RUSSIAN_LETTERS.items()}
_PUNCTUATION = frozenset("«»—–…“”„‘’№§°©®™•·\N{NO-BREAK SPACE}±×÷¶†‡€‰‹›")
_PUNCTUATION_SCORE, _STRANGER_SCORE, _BROKEN_WORD_SCORE = -4.0, -12.0, -6.0
_CAPITAL_SCORE = -0.3
"""For each capital after another: small letters of cp1251 are capitals of KOI8-R, and text that is
all capitals is rare enough to be told by its letters."""
_WORST_MEAN = -5.0
"""Russian prose scores about −3.2 a character in its own encoding, below −6 in another."""

# _BROKEN_WORD: a capital after a small letter, or Latin next to Cyrillic, inside one word.
_CAPITALS = re.compile(r"(?<=[А-ЯЁ])[А-ЯЁ]")
_BROKEN_WORD = re.compile(r"[а-яѐ-џґ][Ѐ-ЯҐ]|[A-Za-z][Ѐ-џ]|[Ѐ-џ][A-Za-z]")


def _cyrillic(sample: bytes) -> str | None:
    """Return the Cyrillic encoding under which the sample reads as Russian, None if none.

    Each word counts once: of a table that says the same in every row, one odd word would decide.
    """
    sample = b" ".join(dict.fromkeys(sample.split()))
    scores = {name: _russian_score(sample, name) for name in _CYRILLIC_ENCODINGS}
    best = max(scores, key=scores.__getitem__)  # the first of equals: the more common one
    return best if scores[best] > _WORST_MEAN else None


def _russian_score(sample: bytes, encoding: str) -> float:
    """Return the mean log-likelihood of the characters beyond ASCII; −inf when there are none."""
    text = sample.decode(encoding, errors="replace")
    foreign = [character for character in text if character > "\x7f"]
    if not foreign:
        return -math.inf
    total = sum(map(_character_score, foreign))
    total += _BROKEN_WORD_SCORE * sum(1 for _ in _BROKEN_WORD.finditer(text))
    total += _CAPITAL_SCORE * sum(1 for _ in _CAPITALS.finditer(text))
    return total / len(foreign)


def _character_score(character: str) -> float:
    if character in _PUNCTUATION:
        return _PUNCTUATION_SCORE
    return _LETTER_SCORE.get(character.lower(), _STRANGER_SCORE)


# The letters beyond ASCII of the languages that an encoding was made for.
_LATIN_LETTERS = {
    "cp1252": "àâäæçéèêëîïôöœùûüÿñáíóúßåøãõìòªº",
    "cp1250": "ąćęłńóśźżáčďéěíňřšťúůýžőűäöüßâăîşţđô",
    "iso8859-2": "ąćęłńóśźżáčďéěíňřšťúůýžőűäöüßâăîşţđô",
    "cp1254": "çğıöşüâîû\u0307",
    "cp1257": "āčēģīķļņšūžąęėįųõäöüåæø",
}
_MOSTLY = 0.9


def _latin(sample: bytes) -> str | None:
    """Return the Latin encoding under which most letters are ones its languages use."""
    shares = {
        name: _share_of_letters(sample.decode(name, errors="replace"), letters)
        for name, letters in _LATIN_LETTERS.items()
    }
    best = max(shares, key=shares.__getitem__)  # the first of equals: the more common one
    return best if shares[best] > _MOSTLY else None


def _share_of_letters(text: str, letters: str) -> float:
    foreign = [character for character in text.lower() if character > "\x7f"]
    foreign = [character for character in foreign if character not in _PUNCTUATION]
    return sum(character in letters for character in foreign) / max(len(foreign), 1)


def _by_charset_normalizer(sample: bytes) -> str | None:
    from charset_normalizer import from_bytes  # 30 ms; only text in rare encodings needs it

    best = from_bytes(sample).best()
    return best.encoding if best else None


# --- cleaning ------------------------------------------------------------------------------

# C0 and C1 controls but tab and line ends, DEL, noncharacters, surrogates, the byte order mark.
_UNWANTED = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufdd0-\ufdef\ufeff\ufffe\uffff"
    + "".join(chr(plane + last) for plane in range(0x10000, 0x110000, 0x10000)
              for last in (0xFFFE, 0xFFFF))
    + "]"
)  # fmt: skip
_LINE_ENDS = re.compile("\r\n?|\x85|\u2028")
_PAGE_ENDS = re.compile("[\x0b\x0c\u2029]+")


def clean(text: str, encoding: str = "utf-8") -> DecodedText:
    """Drop what no reader sees and PostgreSQL can't store; count it. Line ends become LF."""
    text, dropped = _UNWANTED.subn("", text)
    text = _PAGE_ENDS.sub("\n\n", _LINE_ENDS.sub("\n", text))
    return DecodedText(text, encoding, dropped + text.count("\N{REPLACEMENT CHARACTER}"))
