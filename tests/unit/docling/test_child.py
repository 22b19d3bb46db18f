import errno
from pathlib import Path

from ragcore.adapters.docling import wire
from ragcore.adapters.docling.child import _failure
from ragcore.adapters.docling.options import ConversionOptions
from ragcore.errors import ConversionFailed, StorageFull
from ragcore.ports import ConversionRequest


def told(error: Exception) -> Exception:
    request = ConversionRequest(
        path=Path("a.pdf"),
        filename="a.pdf",
        mime_type=None,
        directory=Path(),
        max_tokens=384,
        tokenizer="bytes",
    )
    return _failure(error, wire.Order(request, ConversionOptions())).as_error()


def test_a_full_disk_is_no_fault_of_the_file_whatever_libraries_make_of_it() -> None:
    wrapped = ConversionFailed("the parser of 'a.pdf' failed")
    wrapped.__cause__ = RuntimeError("could not save")
    wrapped.__cause__.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert isinstance(told(wrapped), StorageFull)
    assert told(wrapped).retryable  # type: ignore[attr-defined]


def test_other_errors_of_the_system_are() -> None:
    assert isinstance(told(OSError(errno.EIO, "Input/output error")), ConversionFailed)
