"""What ragcore adds to the first word of a language model, as a client over HTTP meets it.

    python benchmarks/first_token.py [--questions 200]

A scripted Ollama writes the time into its first word; the API streams it on, and the client notes
when its `token` event is there: nothing of the model, the search or the prompt is in between. The
same is measured of a client that asks the scripted Ollama itself, one after the other in turns.
Aim: at most 20 ms more in the median, not in strict mode. Everything runs on this machine, on real
PostgreSQL and Valkey; each question is new.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter

from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fakes.ollama import Chat, FakeModel, FakeOllama
from judged import xquad
from ragcore import Rag
from ragcore.embedded import embedded_servers
from ragcore.settings import Settings
from services import KEY, api_of, environment_of

_MODEL = FakeModel("llama3.2:latest", context_length=8192, capabilities=["completion"])
_TEXTS = 60


async def main(questions: int) -> None:
    with tempfile.TemporaryDirectory(prefix="ragcore-bench-") as directory:
        Path(directory).chmod(0o711)
        data_dir = Path(directory) / "data"
        async with embedded_servers(data_dir) as servers:
            settings = Settings(database_url=SecretStr(servers.database_url), data_dir=data_dir)
            async with Rag.open(settings) as rag:
                for text in xquad("en", "en").texts[:_TEXTS]:
                    await rag.ingest_text(text.text, document_id=text.id)
            environment = environment_of(servers.database_url, servers.redis_url, data_dir)
            await asyncio.to_thread(_serve, environment, questions)


def _serve(environment: dict[str, str], questions: int) -> None:
    with FakeOllama(_MODEL) as ollama:
        environment |= {
            "RAGCORE_GENERATION__PROVIDER": "ollama",
            "RAGCORE_OLLAMA__URL": ollama.url,
        }
        with api_of(environment) as api:
            _measure(ollama, api.port, questions)


def _measure(ollama: FakeOllama, port: int, questions: int) -> None:
    asked = [question.text for question in xquad("en", "en").questions[: questions + 5]]
    served = HTTPConnection("127.0.0.1", port)
    bare = HTTPConnection("127.0.0.1", int(ollama.url.rpartition(":")[2]))
    through: list[float] = []
    direct: list[float] = []
    for question in asked:
        ollama.chats.extend([_stamped(), _stamped()])
        direct.append(_first_word_of_ollama(bare, question))
        through.append(_first_token_of_ragcore(served, question))
    _report("the scripted Ollama itself", direct[5:])
    _report("through ragcore", through[5:])
    added = [one - other for one, other in zip(through[5:], direct[5:], strict=True)]
    print(f"ragcore adds {median(added):.1f} ms in the median (aim: at most 20)")


def _report(name: str, milliseconds: list[float]) -> None:
    p95 = quantiles(milliseconds, n=20)[-1]
    print(f"{name:28} p50 {median(milliseconds):6.1f} ms   p95 {p95:6.1f} ms")


def _stamped() -> Chat:
    """An answer that begins with the time at which it is written."""
    return Chat("", pieces=_Words())


class _Words(list[str]):
    """Words that are made when they are sent."""

    def __iter__(self) -> Iterator[str]:
        yield f"{perf_counter():.6f}"
        yield from (" says", " the", " clock", " [1].")


def _first_word_of_ollama(connection: HTTPConnection, question: str) -> float:
    body = {"model": "llama3.2", "messages": [{"role": "user", "content": question}]}
    connection.request("POST", "/api/chat", json.dumps(body))
    answer = connection.getresponse()
    line = json.loads(answer.readline())
    milliseconds = _since(line["message"]["content"])
    answer.read()
    return milliseconds


def _first_token_of_ragcore(connection: HTTPConnection, question: str) -> float:
    body = json.dumps({"question": question, "stream": True})
    headers = {"Content-Type": "application/json", "X-API-Key": KEY}
    connection.request("POST", "/query", body, headers)
    answer = connection.getresponse()
    event = ""
    for line in answer:
        name, _, value = line.decode().strip().partition(": ")
        if name == "event":
            event = value
        elif name == "data" and event == "token":
            milliseconds = _since(json.loads(value)["text"])
            answer.read()
            return milliseconds
    raise RuntimeError(f"no token came, status {answer.status}")


def _since(stamp: str) -> float:
    return (perf_counter() - float(stamp)) * 1000


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--questions", type=int, default=200)
    asyncio.run(main(parser.parse_args().questions))
