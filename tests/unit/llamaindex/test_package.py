"""LlamaIndex is loaded when it is used, not before."""

import subprocess
import sys

import ragcore.llamaindex


def test_importing_the_package_does_not_import_llamaindex() -> None:
    code = (
        "import sys, ragcore, ragcore.llamaindex, ragcore.llamaindex.bridge;"
        "sys.exit(any(name.startswith('llama_index') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_loads() -> None:
    for name in ragcore.llamaindex.__all__:
        assert callable(getattr(ragcore.llamaindex, name)), name
    assert not hasattr(ragcore.llamaindex, "nothing")
