"""What a conversion child gives up before it touches a file. Linux; used in the child only."""

import ctypes
import fcntl
import os
import resource
import select
import signal
from pathlib import Path

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_LARGEST_FILE_MB = 4096
_MAPPED_MB = 1024
"""Address space that is mapped without being memory: Docling's libraries take 600 MiB of it."""


def die_with(lifeline: int) -> None:
    """Have the kernel kill this process group when the other end of the pipe `lifeline` closes.

    That end is held by the converter alone, so its death, however sudden, ends the child and
    whatever the child started (tesseract, soffice), even while C code holds the interpreter.
    PR_SET_PDEATHSIG would spare the grandchildren, and fires when a mere thread of the parent ends.
    """
    os.set_inheritable(lifeline, False)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if _is_closed(lifeline):  # it happened before the kernel was asked to watch
        os.killpg(os.getpgrp(), signal.SIGKILL)


def _is_closed(lifeline: int) -> bool:
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    return any(event & select.POLLHUP for _, event in poll.poll(0))


def limit_resources(memory_mb: int) -> None:
    """Cap memory and file size, for this process and each one it starts. No core dumps.

    The owner watches the resident memory and kills in time: code that runs into RLIMIT_AS may
    as well hang or crash as raise MemoryError. This is the wall behind it, for what grows faster.
    """
    _limit(resource.RLIMIT_AS, (memory_mb + _MAPPED_MB) * 1024 * 1024)
    _limit(resource.RLIMIT_FSIZE, _LARGEST_FILE_MB * 1024 * 1024)
    _limit(resource.RLIMIT_CORE, 0)


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def forgo_privileges() -> None:
    """Never gain rights through a set-uid program."""
    _libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def leave_network() -> bool:
    """Move into an empty network namespace, where not even loopback answers.

    Root may do that directly, others inside a user namespace of their own. Returns False where
    the kernel or a container's rules forbid it: Docling is told not to fetch anything anyway, this
    only adds a wall. Call it before any thread starts.
    """
    if os.geteuid() == 0:
        return bool(_libc().unshare(_CLONE_NEWNET) == 0)
    user, group = os.geteuid(), os.getegid()
    if _libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
