import asyncio
import subprocess
import sys
from pathlib import Path

from ragcore.adapters.work_directory import work_directory

_HOLD = """
import asyncio, sys
from pathlib import Path
from ragcore.adapters.work_directory import work_directory

async def hold():
    async with work_directory(Path(sys.argv[1])) as directory:
        (directory / "original").write_text("what somebody uploaded")
        print(directory, flush=True)
        await asyncio.sleep(600)

asyncio.run(hold())
"""


async def test_each_owner_has_a_directory_that_goes_with_it(tmp_path: Path) -> None:
    async with work_directory(tmp_path / "work") as one, work_directory(tmp_path / "work") as other:
        (one / "file").touch()
        assert one != other
        assert one.is_dir() and other.is_dir()
    assert list((tmp_path / "work").iterdir()) == []


async def test_what_a_killed_process_left_goes_with_the_next_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220
        assert process.stdout is not None
        left = Path((await asyncio.to_thread(process.stdout.readline)).strip())
        async with work_directory(tmp_path):
            assert (left / "original").exists()  # its owner lives
        process.kill()
        process.wait()
    async with work_directory(tmp_path):
        assert not left.exists()


async def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "process-file").touch()
    async with work_directory(tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"notes", "process-file"}


async def test_a_place_that_cannot_be_written_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "work").touch()
    async with work_directory(tmp_path / "work") as directory:
        (directory / "file").touch()
    assert not directory.exists()
