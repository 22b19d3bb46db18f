"""The name of a file as a sender gave it: `Content-Disposition` headers, in all their spellings.

Browsers send UTF-8 between quotes, RFC 5987 says `filename*=UTF-8''…`, mail libraries send
RFC 2047, old programs send a whole path. A name is only ever a hint, never a path of ours.
"""

import re
from collections.abc import Mapping
from email.errors import HeaderParseError
from email.header import decode_header
from typing import Final
from urllib.parse import unquote_to_bytes

_PARAMETER: Final = re.compile(
    r';\s*(?P<name>[\w!#$&+.^`|~*-]+)\s*=\s*(?:"(?P<quoted>(?:\\.|[^"\\])*)"|(?P<token>[^;]*))'
)
_ESCAPED: Final = re.compile(r'\\(["\\])')
_ENCODED_WORD: Final = re.compile(r"=\?[\w-]+\?[bBqQ]\?[^?]*\?=")
# Browsers escape these three in a quoted name, and nothing else.
_BROWSER_ESCAPES: Final = {"%22": '"', "%0D": "\r", "%0A": "\n"}


def parameters(header: bytes) -> Mapping[str, str]:
    """Return the parameters of a header such as `Content-Disposition`, names in lower case.

    An extended value, `name*=UTF-8''…`, wins over the plain one. Never fails: what can't be
    decoded is replaced.
    """
    plain: dict[str, str] = {}
    extended: dict[str, str] = {}
    for found in _PARAMETER.finditer(_decoded(header)):
        name = found["name"].lower()
        if name.endswith("*"):
            extended.setdefault(name.removesuffix("*"), _extended(found["token"] or ""))
        elif found["quoted"] is not None:
            plain.setdefault(name, _ESCAPED.sub(r"\1", found["quoted"]))
        else:
            plain.setdefault(name, found["token"].strip())
    return plain | extended


def filename_in(header: bytes) -> str | None:
    """Return the file's name in a `Content-Disposition` header, None when it has none.

    Empty for a file without a name, as browsers send it for a form's file field left blank.
    """
    name = parameters(header).get("filename")
    return None if name is None else bare_name(_unescaped(name))


def bare_name(name: str) -> str:
    """Return a name without the folders before it, in Unix and Windows spelling alike."""
    return name.replace("\\", "/").rpartition("/")[2]


def _decoded(header: bytes) -> str:
    try:
        return header.decode()
    except UnicodeDecodeError:
        return header.decode("cp1251", errors="replace")  # old Windows programs in Russian


def _extended(value: str) -> str:
    """Decode `charset'language'percent-encoded`."""
    charset, _, rest = value.strip().partition("'")
    encoded = unquote_to_bytes(rest.partition("'")[2])
    try:
        return encoded.decode(charset or "utf-8", errors="replace")
    except LookupError:  # a charset that nobody knows
        return encoded.decode(errors="replace")


def _unescaped(name: str) -> str:
    if _ENCODED_WORD.search(name):
        return _mail_decoded(name)
    for escape, character in _BROWSER_ESCAPES.items():
        name = name.replace(escape, character)
    return name


def _mail_decoded(name: str) -> str:
    try:
        return "".join(
            piece if isinstance(piece, str) else piece.decode(charset or "ascii", errors="replace")
            for piece, charset in decode_header(name)
        )
    except (HeaderParseError, LookupError):
        return name
