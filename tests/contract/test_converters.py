from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from ragcore.adapters.docling.converter import ConversionOptions, DoclingConverter
from ragcore.testing.contracts.converter import ConverterContract
from ragcore.testing.memory.converter import MemoryConverter


class TestMemoryConverter(ConverterContract):
    @pytest.fixture
    def converter(self) -> MemoryConverter:
        return MemoryConverter()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def children() -> AsyncIterator[DoclingConverter]:
    converter = DoclingConverter(ConversionOptions(processes=2, timeout_seconds=120))
    yield converter
    await converter.aclose()


@pytest.mark.asyncio(loop_scope="module")
class TestDoclingConverter(ConverterContract):
    @pytest.fixture
    def converter(self, children: DoclingConverter) -> DoclingConverter:
        return children
