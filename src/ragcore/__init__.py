"""ragcore: documents in, cited answers out.

`from ragcore import Rag` is the front door. Importing this package opens nothing and imports
neither LlamaIndex nor Docling; names are loaded when they are first used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragcore.rag import Rag

__all__ = ["Rag", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Rag":
        from ragcore.rag import Rag

        return Rag
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
