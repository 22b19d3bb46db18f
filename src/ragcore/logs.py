"""Log lines of the services: for people, or one JSON object a line, each with what it is about.

Whoever takes up a request or a job says so once, with `about`; every line that is logged below it
carries those fields, also from tasks and threads started there. Times are UTC.
"""

import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Literal, TextIO

LogFormat = Literal["human", "json"]

_about: ContextVar[Mapping[str, str]] = ContextVar("ragcore_log_fields")

_NOISY: Final = ("dramatiq", "httpx", "httpcore", "docling", "urllib3", "mcp")
"""Libraries that tell of every step at `info`: only their warnings are of use to an operator."""

_STANDARD: Final = (
    *vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"
)  # fmt: skip
"""What every record has, or uvicorn adds: no field of ours."""

_SECRETS: Final = (
    # The password in an address. What holds spaces, quotes or a slash is no password of one.
    (re.compile(r"""(\b[a-z][a-z0-9+.-]*://[^\s:/@"'\\]*:)[^\s/"'\\]+@""", re.I), r"\1***@"),
    (re.compile(r"\brk_[A-Za-z0-9_-]{16,}"), "rk_***"),
    (re.compile(r"\b(Bearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.I), r"\1***"),
    (re.compile(r"\b(password=)(?!\*)('[^']*'|[^\s\"'&]+)", re.I), r"\1***"),
)  # fmt: skip


def configure(*, level: str, log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Send every logger's lines of at least this level to stderr, or to `stream`.

    Replaces what was configured before. Passwords in addresses, API keys and bearer tokens are
    masked, wherever in a line or a traceback they stand.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.addFilter(_add_fields)
    handler.setFormatter(_json() if log_format == "json" else _Human())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _NOISY:
        quiet = logging.WARNING if root.level > logging.DEBUG else logging.NOTSET
        logging.getLogger(name).setLevel(quiet)


@contextmanager
def about(**fields: str | None) -> Iterator[None]:
    """Have every line logged inside the block carry these fields, beside those around it.

    None leaves what the lines carry already.
    """
    known = {name: value for name, value in fields.items() if value is not None}
    token = _about.set({**_about.get({}), **known})
    try:
        yield
    finally:
        _about.reset(token)


def without_secrets(text: str) -> str:
    """Mask what opens a door: passwords in addresses, API keys, bearer tokens."""
    for secret, mask in _SECRETS:
        text = secret.sub(mask, text)
    return text


def _add_fields(record: logging.LogRecord) -> bool:
    """Set on the record what it is about, where its own `extra` does not say so."""
    for name, value in _about.get({}).items():
        vars(record).setdefault(name, value)
    return True


class _Human(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO message (job_id=…)`, then the traceback if there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        line = super().formatMessage(record)
        fields = [f"{name}={vars(record)[name]}" for name in vars(record).keys() - set(_STANDARD)]
        if fields:
            line += f" ({' '.join(sorted(fields))})"
        return line.replace("\r", "\\r").replace("\n", "\\n")  # nobody forges a line of ours

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def _json() -> logging.Formatter:
    """Return what makes `{"time": …, "level": …, "logger": …, "message": …, "job_id": …}`."""
    from pythonjsonlogger.json import JsonFormatter  # here: a command line does without it

    class Json(JsonFormatter):
        def format(self, record: logging.LogRecord) -> str:
            return without_secrets(super().format(record))

    return Json(
        ["levelname", "process", "name", "message"],
        rename_fields={
            "levelname": "level",
            "process": "pid",
            "name": "logger",
            "exc_info": "traceback",
        },
        reserved_attrs=_STANDARD,
        timestamp="time",
        json_ensure_ascii=False,
    )
