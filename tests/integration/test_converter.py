"""Real children, real Docling: what happens when files are good, slow, greedy or deadly."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from ragcore.adapters.docling.converter import ConversionOptions, DoclingConverter
from ragcore.errors import (
    ConversionFailed,
    ConversionTimeout,
    DocumentTooLarge,
    NotConfigured,
    UnsupportedMachine,
)
from ragcore.model import ConvertedDocument, Stage
from ragcore.ports import ConversionRequest

TEXT = "The harbour master of Port Elverin keeps a journal of every tide.\n\n" * 3

OPTIONS = ConversionOptions(processes=1, timeout_seconds=120)

Open = Callable[[ConversionOptions], DoclingConverter]


@pytest.fixture
async def open_converter() -> AsyncIterator[Open]:
    """Make converters that are closed, and whose children are gone, when the test ends."""
    opened: list[DoclingConverter] = []

    def make(options: ConversionOptions) -> DoclingConverter:
        opened.append(DoclingConverter(options))
        return opened[-1]

    yield make
    for converter in opened:
        pids = converter.process_ids
        await converter.aclose()
        assert not [pid for pid in pids if is_running(pid)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def converter() -> AsyncIterator[DoclingConverter]:
    """One converter for all tests that leave its child alone."""
    converter = DoclingConverter(OPTIONS)
    yield converter
    await converter.aclose()


shared_child = pytest.mark.asyncio(loop_scope="module")


class Files:
    """Requests for files of a test's own making, each with a directory for its results."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def request(self, name: str, content: str | bytes) -> ConversionRequest:
        directory = self._root / f"results-{len(list(self._root.iterdir()))}"
        directory.mkdir()
        path = directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return ConversionRequest(
            path=path,
            filename=name,
            mime_type=None,
            directory=directory,
            max_tokens=384,
            tokenizer="bytes",
        )

    def good(self) -> ConversionRequest:
        return self.request("good.txt", TEXT)

    def slow(self, rows: int = 40_000) -> ConversionRequest:
        """Return a table that takes Docling many seconds and more than a gigabyte."""
        row = ",".join(str(column) for column in range(20)) + "\n"
        return self.request("slow.csv", row * rows)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def is_running(pid: int) -> bool:
    """Say whether a process exists and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def children() -> set[int]:
    """Process ids of all our own conversion children, ready or not."""
    found = set()
    for path in Path("/proc").iterdir():
        with suppress(OSError):
            if path.name.isdigit() and b"docling.child" in (path / "cmdline").read_bytes():
                parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
                found |= {int(path.name)} if int(parent) == os.getpid() else set()
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(100):
        while not condition():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.02)


def text_of(document: ConvertedDocument) -> str:
    return " ".join(chunk.text for chunk in document.chunks)


class Watch:
    """Collects progress, and tells when a conversion has begun."""

    def __init__(self) -> None:
        self.stages: list[tuple[Stage, float]] = []
        self.begun = asyncio.Event()

    def __call__(self, stage: Stage, fraction: float) -> None:
        self.stages.append((stage, fraction))
        self.begun.set()


@shared_child
async def test_a_file_comes_back_as_chunks_with_its_files(
    converter: DoclingConverter, files: Files
) -> None:
    request, watch = files.good(), Watch()
    document = await converter.convert(request, progress=watch)
    assert "harbour master" in text_of(document)
    assert document.language == "en"
    assert document.report.mime_type == "text/plain"
    assert document.markdown_path
    assert "harbour master" in Path(document.markdown_path).read_text()
    assert document.docling_path
    assert Path(document.docling_path).parent == request.directory
    assert not (request.directory / "scratch").exists()
    assert {stage for stage, _ in watch.stages} == {"converting", "chunking"}
    assert all(0 <= fraction <= 1 for _, fraction in watch.stages)


@shared_child
async def test_the_same_bytes_give_the_same_chunks_and_files(
    converter: DoclingConverter, files: Files
) -> None:
    first = await converter.convert(files.good())
    second = await converter.convert(files.good())
    assert first.chunks == second.chunks
    assert first.docling_path
    assert second.docling_path
    assert Path(first.docling_path).read_bytes() == Path(second.docling_path).read_bytes()


async def test_a_child_is_reused_then_recycled(open_converter: Open, files: Files) -> None:
    converter = open_converter(replace(OPTIONS, recycle_after=2))
    seen = []
    for _ in range(4):
        await converter.warm()
        seen.append(converter.process_ids[0])
        await converter.convert(files.good())
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    assert seen[1] != seen[2]
    await until(lambda: not is_running(seen[0]))


async def test_two_conversions_run_in_two_processes(open_converter: Open, files: Files) -> None:
    converter = open_converter(replace(OPTIONS, processes=2))
    await converter.warm()
    watches = [Watch(), Watch()]
    both = [
        asyncio.create_task(converter.convert(files.slow(), progress=watch)) for watch in watches
    ]
    await asyncio.gather(*(watch.begun.wait() for watch in watches))  # at the same time
    assert not any(task.done() for task in both)
    assert len(set(converter.process_ids)) == 2
    for task in both:
        task.cancel()
    await asyncio.gather(*both, return_exceptions=True)


async def test_a_small_file_does_not_wait_for_large_ones(
    open_converter: Open, files: Files
) -> None:
    converter = open_converter(OPTIONS)
    watch = Watch()
    large = [
        asyncio.create_task(converter.convert(files.slow(), progress=watch)),
        asyncio.create_task(converter.convert(files.slow())),
    ]
    await watch.begun.wait()
    assert "harbour" in text_of(await converter.convert(files.good()))
    assert not any(task.done() for task in large)
    assert len(converter.process_ids) == 2
    for task in large:
        task.cancel()
    await asyncio.gather(*large, return_exceptions=True)


async def test_a_file_whose_child_is_killed_is_read_again(
    open_converter: Open, files: Files
) -> None:
    converter = open_converter(replace(OPTIONS, processes=2))
    await converter.warm()
    before = converter.process_ids
    watch = Watch()
    reading = asyncio.create_task(converter.convert(files.slow(rows=2000), progress=watch))
    await watch.begun.wait()
    victim = converter.busy_process_ids[0]
    other = asyncio.create_task(converter.convert(files.good()))
    os.kill(victim, signal.SIGKILL)
    assert "17" in text_of(await reading)
    assert "harbour" in text_of(await other)
    await converter.warm()
    assert victim not in converter.process_ids
    assert set(before) & set(converter.process_ids)  # the other child was left alone


async def test_a_child_killed_while_it_starts_is_replaced_unnoticed(
    open_converter: Open, files: Files
) -> None:
    others = children()
    converter = open_converter(OPTIONS)
    reading = asyncio.create_task(converter.convert(files.good()))
    await until(lambda: bool(children() - others))
    for pid in children() - others:
        os.kill(pid, signal.SIGKILL)
    assert "harbour" in text_of(await reading)


async def test_a_file_whose_child_is_killed_every_time_is_given_up(
    open_converter: Open, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragcore.adapters.docling.converter._PAUSES_SECONDS", (0.0, 0.1))
    converter = open_converter(OPTIONS)
    reading = asyncio.create_task(converter.convert(files.slow()))
    killed = 0
    while not reading.done():
        for pid in converter.busy_process_ids:
            os.kill(pid, signal.SIGKILL)
            killed += 1
            await until(lambda pid=pid: not is_running(pid))  # type: ignore[misc]
        await asyncio.sleep(0.01)
    with pytest.raises(ConversionFailed, match=r"'slow\.csv' was killed .* 3 times in a row"):
        await reading
    assert killed == 3
    assert "harbour" in text_of(await converter.convert(files.good()))


async def test_a_crash_is_a_failed_conversion(open_converter: Open, files: Files) -> None:
    converter = open_converter(OPTIONS)
    await converter.warm()
    watch = Watch()
    doomed = asyncio.create_task(converter.convert(files.slow(), progress=watch))
    await watch.begun.wait()
    os.kill(converter.process_ids[0], signal.SIGSEGV)
    with pytest.raises(ConversionFailed, match=r"crashed \(SIGSEGV\)"):
        await doomed
    assert "harbour" in text_of(await converter.convert(files.good()))


async def test_a_child_that_died_idle_is_replaced_unnoticed(
    open_converter: Open, files: Files
) -> None:
    converter = open_converter(OPTIONS)
    await converter.convert(files.good())
    victim = converter.process_ids[0]
    os.kill(victim, signal.SIGKILL)
    await until(lambda: not is_running(victim))
    assert "harbour" in text_of(await converter.convert(files.good()))


async def test_over_time_the_child_is_killed(open_converter: Open, files: Files) -> None:
    converter = open_converter(replace(OPTIONS, timeout_seconds=1.5))
    await converter.warm()
    victim = converter.process_ids[0]
    with pytest.raises(ConversionTimeout, match=r"'slow\.csv' took longer than the 1\.5 s"):
        await converter.convert(files.slow())
    await until(lambda: not is_running(victim))
    assert "harbour" in text_of(await converter.convert(files.good()))


async def test_over_memory_is_told_apart(open_converter: Open, files: Files) -> None:
    converter = open_converter(replace(OPTIONS, memory_mb=500))
    with pytest.raises(ConversionTimeout, match="500 MiB of memory"):
        await converter.convert(files.slow())
    assert "harbour" in text_of(await converter.convert(files.good()))


async def test_cancelling_kills_the_child(open_converter: Open, files: Files) -> None:
    converter = open_converter(OPTIONS)
    await converter.warm()
    victim, watch = converter.process_ids[0], Watch()
    task = asyncio.create_task(converter.convert(files.slow(), progress=watch))
    await watch.begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not is_running(victim))
    assert "harbour" in text_of(await converter.convert(files.good()))


async def test_an_error_in_the_progress_callback_ends_the_conversion(
    open_converter: Open, files: Files
) -> None:
    def lost(stage: Stage, fraction: float) -> None:
        raise LookupError("the lease is lost")

    converter = open_converter(OPTIONS)
    with pytest.raises(LookupError):
        await converter.convert(files.good(), progress=lost)
    assert "harbour" in text_of(await converter.convert(files.good()))


@shared_child
async def test_waiting_conversions_are_served_in_order(
    converter: DoclingConverter, files: Files
) -> None:
    served: list[int] = []

    async def one(number: int) -> None:
        await converter.convert(files.good())
        served.append(number)

    await asyncio.gather(*(one(number) for number in range(6)))
    assert served == list(range(6))


@shared_child
async def test_the_event_loop_stays_free(converter: DoclingConverter, files: Files) -> None:
    """Start, conversion and hand-over of thousands of chunks run while other tasks go on."""
    longest, stop = 0.0, asyncio.Event()

    async def tick() -> None:
        nonlocal longest
        while not stop.is_set():
            before = time.thread_time()
            await asyncio.sleep(0)
            longest = max(longest, time.thread_time() - before)
            await asyncio.sleep(0.001)

    ticking = asyncio.create_task(tick())
    document = await converter.convert(files.request("long.txt", TEXT * 3000))
    stop.set()
    await ticking
    assert len(document.chunks) > 1000
    # CPU time of this thread between two turns of the loop, so that a busy machine can't fail it:
    # decoding all chunks at once would take several times as much.
    assert longest < 0.25


async def test_closing_fails_what_runs_and_what_waits(open_converter: Open, files: Files) -> None:
    converter = open_converter(OPTIONS)
    await converter.warm()
    watch = Watch()
    running = asyncio.create_task(converter.convert(files.slow(), progress=watch))
    waiting = asyncio.create_task(converter.convert(files.good()))
    await watch.begun.wait()
    await converter.aclose()
    with pytest.raises(ConversionFailed):
        await running
    with pytest.raises(NotConfigured):
        await waiting
    with pytest.raises(NotConfigured):
        await converter.convert(files.good())
    await converter.aclose()


async def test_one_file_after_another_takes_one_child(open_converter: Open, files: Files) -> None:
    converter = open_converter(replace(OPTIONS, processes=2))
    for _ in range(3):
        await converter.convert(files.good())
    assert len(converter.process_ids) == 1


async def test_closing_does_not_wait_for_a_child_to_start(
    open_converter: Open, files: Files
) -> None:
    converter = open_converter(OPTIONS)
    early = asyncio.create_task(converter.convert(files.good()))
    await asyncio.sleep(0.05)
    await converter.aclose()
    with pytest.raises(NotConfigured):
        await early
    assert converter.process_ids == ()


async def test_a_child_that_cannot_start_is_the_machines_fault(
    open_converter: Open, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(UnsupportedMachine, match="does not start"):
        await open_converter(OPTIONS).convert(files.good())


async def test_limits_are_checked_before_docling(open_converter: Open, files: Files) -> None:
    converter = open_converter(replace(OPTIONS, max_file_mb=1))
    with pytest.raises(DocumentTooLarge, match="the limit is 1 MiB"):
        await converter.convert(files.request("big.txt", "word " * 400_000))


@shared_child
async def test_an_unknown_token_counter_is_refused(
    converter: DoclingConverter, files: Files
) -> None:
    with pytest.raises(NotConfigured, match="'abacus'"):
        await converter.convert(replace(files.good(), tokenizer="abacus"))


@shared_child
async def test_the_prefix_counts_against_the_limit(
    converter: DoclingConverter, files: Files
) -> None:
    request = replace(files.good(), max_tokens=120, prefix="passage: ")
    document = await converter.convert(request)
    sizes = [len(f"passage: {chunk.embedding_text}".encode()) for chunk in document.chunks]
    assert all(size <= 120 for size in sizes)
    assert all(chunk.tokens <= 120 for chunk in document.chunks)


async def test_the_child_knows_no_secret_and_no_network(
    open_converter: Open, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGCORE_DATABASE_URL", "postgresql://u:secret@h/d")
    converter = open_converter(OPTIONS)
    await converter.convert(files.good())
    process = Path(f"/proc/{converter.process_ids[0]}")
    assert b"secret" not in (process / "environ").read_bytes()
    assert b"RAGCORE" not in (process / "environ").read_bytes()
    if os.readlink(process / "ns/net") == os.readlink("/proc/self/ns/net"):
        pytest.skip("this machine lets no process leave the network")
    assert (process / "net/tcp").read_text().count("\n") == 1  # a heading and no socket


PARENT = """
import asyncio, subprocess, sys
from pathlib import Path
from ragcore.adapters.docling.converter import ConversionOptions, DoclingConverter
from ragcore.ports import ConversionRequest

converter = DoclingConverter(ConversionOptions(processes=1))

async def main():
    await converter.warm()
    print(*converter.process_ids, flush=True)
    path = Path(sys.argv[1])
    await converter.convert(ConversionRequest(path, path.name, None, path.parent, 384, "bytes"))

asyncio.run(main())
"""


def test_children_die_with_their_owner_and_need_no_main_guard(tmp_path: Path, files: Files) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(PARENT))
    slow = files.slow().path
    with subprocess.Popen(
        [sys.executable, str(script), str(slow)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        child = int(owner.stdout.readline())
        assert is_running(child)
        while not (slow.parent / "scratch").exists():
            time.sleep(0.02)
        owner.kill()
        owner.wait()
    deadline = time.monotonic() + 60
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_running(child)
