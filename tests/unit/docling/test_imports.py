"""Docling costs seconds to import: only the children pay."""

import subprocess
import sys


def test_the_converter_is_imported_without_docling() -> None:
    code = (
        "import sys, ragcore.adapters.docling.converter\n"
        "heavy = {'docling', 'docling_core', 'docling_parse', 'pandas', 'torch', 'PIL', 'lxml'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_docling_is_imported_without_torch() -> None:
    """Some versions of docling-slim can't: the pin in pyproject.toml is one that can."""
    code = (
        "import sys\n"
        "from ragcore.adapters.docling import work\n"
        "work.preload()\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False False"
