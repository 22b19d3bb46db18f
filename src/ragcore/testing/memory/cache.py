"""An embedding cache in a dictionary."""

from collections.abc import Mapping, Sequence

from ragcore.model import Vector


class MemoryEmbeddingCache:
    """`ports.EmbeddingCache` for tests of flows."""

    def __init__(self) -> None:
        self.vectors: dict[tuple[str, bytes], Vector] = {}

    async def get(self, model_key: str, hashes: Sequence[bytes]) -> Mapping[bytes, Vector]:
        found = {key: self.vectors.get((model_key, key)) for key in hashes}
        return {key: vector for key, vector in found.items() if vector is not None}

    async def put(self, model_key: str, vectors: Mapping[bytes, Vector]) -> None:
        self.vectors.update({(model_key, key): vector for key, vector in vectors.items()})
