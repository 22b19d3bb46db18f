import asyncio
import errno
import io
import os
import sys
from pathlib import Path

import pytest

from ragcore.embedded.processes import Processes
from ragcore.errors import Unavailable


def python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


def processes(**codes: str) -> Processes:
    commands = {name: python(code) for name, code in codes.items()}
    return Processes(commands, environment=dict(os.environ))


async def until_exists(path: Path) -> None:
    while not path.exists():  # noqa: ASYNC110 - a file raises no event
        await asyncio.sleep(0.01)


async def until_run(started: Processes, name: str) -> None:
    """Wait until it is looked after: a quick program may be done before its starter is."""
    while name not in started.pids:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.01)


async def test_lines_carry_the_name_of_their_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = tmp_path / "done"
    code = f"print('готово'); open({str(done)!r}, 'w'); import time; time.sleep(600)"
    async with processes(api=code, worker="import time; time.sleep(600)") as started:
        await until_exists(done)
        await until_run(started, "api")
    assert "api    | готово\n" in capsys.readouterr().err


async def test_a_line_that_never_ends_is_passed_on_in_pieces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = tmp_path / "done"
    code = f"print('x' * 300_000, end=''); open({str(done)!r}, 'w'); import time; time.sleep(600)"
    async with processes(api=code) as started:
        await until_exists(done)
        await until_run(started, "api")
    assert capsys.readouterr().err.count("x") == 300_000


class FullLog(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_log_that_can_not_be_written_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = tmp_path / "done"
    code = (
        "import time; [print('x' * 100) for _ in range(3000)];"
        f"open({str(done)!r}, 'w'); time.sleep(600)"
    )
    monkeypatch.setattr(sys, "stderr", FullLog())
    async with processes(api=code) as started:
        await until_exists(done)
        await until_run(started, "api")


async def test_a_program_that_ends_while_starting_is_the_end() -> None:
    async with processes(api="raise SystemExit(3)") as started:
        with pytest.raises(Unavailable, match="api ended with code 3"):
            await started.until_one_ends()


async def test_a_program_that_ends_later_is_started_again(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    code = (
        "import pathlib, time;"
        f"first, second = pathlib.Path({str(first)!r}), pathlib.Path({str(second)!r});"
        "(second if first.exists() else first).touch();"
        "time.sleep(600)"
    )
    async with processes(api=code) as started:
        await until_exists(first)
        started.allow_restarts()
        before = started.pids["api"]
        os.kill(before, 9)
        await until_exists(second)
        assert started.pids["api"] != before


async def test_every_program_is_stopped_at_the_end(tmp_path: Path) -> None:
    ready = [tmp_path / "a", tmp_path / "b"]
    codes = {path.name: f"open({str(path)!r}, 'w'); import time; time.sleep(600)" for path in ready}
    async with processes(**codes) as started:
        for path in ready:
            await until_exists(path)
        pids = list(started.pids.values())
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_programs_have_variables_of_their_own_and_their_lines_as_they_wrote_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import os, time; print(os.environ['NAME']); open(os.environ['DONE'], 'w')"
    done = {name: tmp_path / name for name in ("one", "two")}
    started = Processes(
        {name: python(code + "; time.sleep(600)") for name in done},
        environment={**os.environ, "NAME": "all"},
        own={
            "one": {"DONE": str(done["one"])},
            "two": {"DONE": str(done["two"]), "NAME": "mine"},
        },
        named_lines=False,
    )
    async with started:
        for name, path in done.items():
            await until_exists(path)
            await until_run(started, name)
    assert sorted(capsys.readouterr().err.splitlines()) == ["all", "mine"]
