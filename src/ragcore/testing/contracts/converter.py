"""What every `ports.Converter` promises."""

import asyncio
from pathlib import Path

import pytest

from ragcore.errors import NoTextFound, UnsupportedFormat
from ragcore.model import Stage
from ragcore.ports import ConversionRequest, Converter

TEXT = "\n\n".join(
    f"Entry {number}: the harbour master of Port Elverin keeps a journal of every tide. "
    f"Запись {number}: смотритель порта ведёт журнал приливов."
    for number in range(12)
)


class ConverterContract:
    """Subclass, supply a `converter` fixture, inherit the tests."""

    def request(
        self, directory: Path, content: str | bytes = TEXT, *, name: str = "journal.txt"
    ) -> ConversionRequest:
        results = directory / f"results-{len(list(directory.iterdir()))}"
        results.mkdir()
        path = results / "original"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return ConversionRequest(
            path=path, filename=name, mime_type=None, directory=results,
            max_tokens=160, tokenizer="bytes",
        )  # fmt: skip

    async def test_every_word_is_in_a_chunk_in_order(
        self, converter: Converter, tmp_path: Path
    ) -> None:
        document = await converter.convert(self.request(tmp_path))
        assert " ".join(chunk.text for chunk in document.chunks).split() == TEXT.split()
        assert [chunk.ordinal for chunk in document.chunks] == list(range(len(document.chunks)))

    async def test_no_chunk_is_over_the_limit(self, converter: Converter, tmp_path: Path) -> None:
        document = await converter.convert(self.request(tmp_path))
        assert len(document.chunks) > 1
        assert all(0 < chunk.tokens <= 160 for chunk in document.chunks)
        assert all(len(chunk.embedding_text.encode()) <= 160 for chunk in document.chunks)

    async def test_the_same_bytes_give_the_same_document(
        self, converter: Converter, tmp_path: Path
    ) -> None:
        first = await converter.convert(self.request(tmp_path))
        second = await converter.convert(self.request(tmp_path))
        assert first.chunks == second.chunks
        assert first.report == second.report
        assert len({chunk.chunk_id for chunk in first.chunks}) == len(first.chunks)

    async def test_other_bytes_give_other_ids(self, converter: Converter, tmp_path: Path) -> None:
        first = await converter.convert(self.request(tmp_path, "one text"))
        second = await converter.convert(self.request(tmp_path, "another text"))
        assert first.chunks[0].chunk_id != second.chunks[0].chunk_id

    async def test_the_name_is_never_a_path(self, converter: Converter, tmp_path: Path) -> None:
        document = await converter.convert(self.request(tmp_path, name="../../etc/passwd.txt"))
        assert "harbour" in document.chunks[0].text
        assert "root:" not in " ".join(chunk.text for chunk in document.chunks)

    async def test_results_lie_in_the_callers_directory(
        self, converter: Converter, tmp_path: Path
    ) -> None:
        request = self.request(tmp_path)
        document = await converter.convert(request)
        written = [path for path in (document.markdown_path, document.docling_path) if path]
        assert written
        assert all(Path(path).parent == request.directory for path in written)

    async def test_the_document_carries_its_reading_report(
        self, converter: Converter, tmp_path: Path
    ) -> None:
        report = (await converter.convert(self.request(tmp_path))).report
        assert report.parser
        assert report.mime_type == "text/plain"
        assert report.characters > 0

    @pytest.mark.parametrize("content", [b"", b" \n\t \n"])
    async def test_nothing_to_read_is_a_failure(
        self, converter: Converter, tmp_path: Path, content: bytes
    ) -> None:
        with pytest.raises(NoTextFound):
            await converter.convert(self.request(tmp_path, content))

    async def test_bytes_of_no_format_are_refused_and_the_next_file_is_read(
        self, converter: Converter, tmp_path: Path
    ) -> None:
        with pytest.raises(UnsupportedFormat):
            await converter.convert(self.request(tmp_path, bytes(range(256)) * 20))
        assert (await converter.convert(self.request(tmp_path))).chunks

    async def test_progress_is_told_in_order_of_the_stages(
        self, converter: Converter, tmp_path: Path
    ) -> None:
        told: list[tuple[Stage, float]] = []
        await converter.convert(
            self.request(tmp_path), progress=lambda stage, fraction: told.append((stage, fraction))
        )
        stages = [stage for stage, _ in told]
        assert stages == sorted(stages, key=["converting", "chunking"].index)
        assert all(0 <= fraction <= 1 for _, fraction in told)

    async def test_conversions_may_run_at_the_same_time(
        self, converter: Converter, tmp_path: Path
    ) -> None:
        requests = [self.request(tmp_path, f"text number {number}") for number in range(5)]
        documents = await asyncio.gather(*(converter.convert(request) for request in requests))
        for number, document in enumerate(documents):
            assert document.chunks[0].text == f"text number {number}"

    async def test_the_fingerprint_stays(self, converter: Converter, tmp_path: Path) -> None:
        before = converter.fingerprint
        await converter.convert(self.request(tmp_path))
        assert before == converter.fingerprint != ""
