"""What a child gives up, tried in processes of its own."""

import os
import socket
import subprocess
import sys
import time

import pytest

PROLOGUE = "import os, socket, sys; from ragcore.adapters.docling import sandbox\n"


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROLOGUE + code], capture_output=True, text=True, check=False
    )


def test_memory_over_the_limit_is_refused() -> None:
    result = run("sandbox.limit_resources(100)\nbytearray(1200 * 2**20)")
    assert "MemoryError" in result.stderr


def test_outside_the_network_not_even_loopback_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = run(
            "if not sandbox.leave_network(): sys.exit('not allowed here')\n"
            "try:\n"
            f"    socket.create_connection(('127.0.0.1', {port}), timeout=5)\n"
            "except OSError: print('cut off')\n"
        )
    if "not allowed here" in result.stderr:
        pytest.skip("this machine lets no process leave the network")
    assert result.stdout.strip() == "cut off"


def test_a_whole_process_group_dies_with_the_lifeline() -> None:
    theirs, ours = os.pipe()
    code = (
        PROLOGUE + f"sandbox.die_with({theirs})\n"
        "import subprocess\n"
        "other = subprocess.Popen(['sleep', '600'])\n"
        "print(other.pid, flush=True)\n"
        "while True: pass\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        pass_fds=[theirs], start_new_session=True, stdout=subprocess.PIPE, text=True,
    ) as child:  # fmt: skip
        os.close(theirs)
        assert child.stdout is not None
        grandchild = int(child.stdout.readline())
        assert child.poll() is None
        os.close(ours)
        assert child.wait(timeout=60) == -9
    while is_alive(grandchild):
        time.sleep(0.01)


def test_a_lifeline_that_is_already_closed_kills_at_once() -> None:
    theirs, ours = os.pipe()
    os.close(ours)
    with subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + f"sandbox.die_with({theirs})\nwhile True: pass"],
        pass_fds=[theirs],
        start_new_session=True,
    ) as child:
        os.close(theirs)
        assert child.wait(timeout=60) == -9


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
