"""The conversion child: `python -m ragcore.adapters.docling.child CHANNEL LIFELINE MEMORY_MB`.

Started by `processes.ConversionProcess` and of no use by hand. It reads orders from the inherited
socket CHANNEL, one at a time, and ends when that closes. It is expendable: the converter kills it
at any line, and everything it writes lies in the directory its order names.
"""

import errno
import faulthandler
import logging
import socket
import sys
from dataclasses import replace

from ragcore.adapters.docling import sandbox, wire
from ragcore.errors import ConversionFailed, ConversionTimeout, RagError, StorageFull
from ragcore.model import ConvertedDocument, Stage

log = logging.getLogger("ragcore.conversion")

_LONGEST_MESSAGE = 500


def main() -> None:
    channel_fd, lifeline, memory_mb = map(int, sys.argv[1:4])
    sandbox.die_with(lifeline)
    sandbox.limit_resources(memory_mb)
    sandbox.forgo_privileges()
    has_left_network = sandbox.leave_network()
    faulthandler.enable()
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    log.debug("without network: %s", has_left_network)
    with socket.socket(fileno=channel_fd) as channel:
        channel.set_inheritable(False)
        _work_through(channel)


def _work_through(channel: socket.socket) -> None:
    # Seconds of importing: after the limits are in place, before the first order needs it.
    from ragcore.adapters.docling import work

    work.preload()
    channel.sendall(wire.reply_frame(wire.Ready()))
    while order := wire.read_order(channel):

        def tell(stage: Stage, fraction: float) -> None:
            channel.sendall(wire.reply_frame(wire.Progress(stage, fraction)))

        try:
            document = work.convert(order.request, order.options, tell)
        except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the owner is told
            channel.sendall(wire.reply_frame(_failure(error, order)))
        else:
            _hand_over(document, channel)


def _hand_over(document: ConvertedDocument, channel: socket.socket) -> None:
    for first in range(0, len(document.chunks), wire.CHUNKS_PER_FRAME):
        part = document.chunks[first : first + wire.CHUNKS_PER_FRAME]
        channel.sendall(wire.reply_frame(wire.Chunks(part)))
    rest = replace(document, chunks=())
    channel.sendall(wire.reply_frame(wire.Done(rest)))


def _failure(error: Exception, order: wire.Order) -> wire.Failed:
    """Put an exception into words of `ragcore.errors`; the unexpected also goes to the log."""
    known = _as_rag_error(error, order)
    if known is not error:
        log.warning("reading %r failed", order.request.filename, exc_info=error)
    return wire.Failed(
        error=type(known).__name__,
        message=str(known)[:_LONGEST_MESSAGE],
    )


def _as_rag_error(error: Exception, order: wire.Order) -> RagError:
    if _is_out_of_room(error):
        return StorageFull("the disk is full where conversions work; the file is read again later")
    if isinstance(error, RagError):
        return error
    name = order.request.filename or order.request.path.name
    if isinstance(error, MemoryError):
        return ConversionTimeout(
            f"{name!r} needs more than the {order.options.memory_mb} MiB of memory allowed for a "
            "conversion; split the document or raise the limit"
        )
    if isinstance(error, RecursionError):
        return ConversionFailed(f"{name!r} is nested too deeply to be read")
    return ConversionFailed(f"{name!r} could not be read: {type(error).__name__}: {error}")


def _is_out_of_room(error: BaseException | None) -> bool:
    """Look for a full disk behind an error, under whatever the libraries made of it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


if __name__ == "__main__":
    main()
