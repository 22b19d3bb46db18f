"""What traces cost a question, and what a Langfuse that hangs does to the service.

Three API processes over one database and one scripted language model: without Langfuse, with one
that answers at once, and with one that takes every request and never answers. Each question is put
to each of them, in turns. Then all are told to stop, and the seconds until they are gone are taken.

    python benchmarks/traces.py [--questions 200]
"""

import argparse
import asyncio
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Event

import httpx
from pydantic import SecretStr

from loading import database
from ragcore import Rag
from ragcore.embedded import embedded_servers
from ragcore.embedded.machine import free_port
from ragcore.settings import Settings
from rendering import articles
from services import KEY, Server, api_of, environment_of, process

_OLLAMA = Path(__file__).resolve().parents[1] / "tests" / "fakes" / "ollama.py"
_WARM_UP = 15


async def main(question_count: int) -> None:
    found = articles("en")
    questions = [q.text for article in found for q in article.questions]
    questions = questions[: question_count + _WARM_UP]
    with tempfile.TemporaryDirectory(prefix="ragcore-bench-") as directory, ExitStack() as stack:
        Path(directory).chmod(0o711)
        data_dir = Path(directory) / "data"
        async with (
            database(None) as url,
            embedded_servers(data_dir, postgres=False) as servers,
        ):
            async with Rag.open(Settings(database_url=SecretStr(url), data_dir=data_dir)) as rag:
                for article in found:
                    text = "\n\n".join(article.paragraphs)
                    await rag.ingest_text(text, document_id=f"article-{article.number}")
            ollama = stack.enter_context(_scripted())
            environment = environment_of(url, servers.redis_url, data_dir) | {
                "RAGCORE_GENERATION__PROVIDER": "ollama",
                "RAGCORE_OLLAMA__URL": ollama,
            }
            kinds = {"none": {}, "quick": _langfuse(stack), "hanging": _langfuse(stack, "--hang")}
            apis = {
                name: stack.enter_context(api_of(environment | extra))
                for name, extra in kinds.items()
            }
            times = await asyncio.to_thread(_ask, apis, questions)
            _report(times)
            await asyncio.to_thread(_stop, apis)


@contextmanager
def _scripted() -> Iterator[str]:
    """Run the language model in a process of its own; it quotes what it is given."""
    with Popen([sys.executable, str(_OLLAMA)], stdout=PIPE, text=True) as running:
        assert running.stdout is not None
        yield running.stdout.readline().split()[1]
        running.terminate()


def _langfuse(stack: ExitStack, *options: str) -> dict[str, str]:
    """Start a Langfuse and return the settings that name it."""
    port = free_port(None)
    stack.enter_context(
        process([sys.executable, __file__, "--serve-langfuse", str(port), *options], os.environ)
    )
    return {
        "RAGCORE_LANGFUSE__URL": f"http://127.0.0.1:{port}",
        "RAGCORE_LANGFUSE__PUBLIC_KEY": "pk",
        "RAGCORE_LANGFUSE__SECRET_KEY": "sk",
    }


def _ask(apis: dict[str, Server], questions: list[str]) -> dict[str, list[float]]:
    """Return the milliseconds of each question at each service."""
    times: dict[str, list[float]] = {name: [] for name in apis}
    with httpx.Client(headers={"X-API-Key": KEY}, timeout=60) as http:
        for number, question in enumerate(questions):
            for name, api in apis.items():
                started = time.perf_counter()
                http.post(
                    f"http://127.0.0.1:{api.port}/query", json={"question": question}
                ).raise_for_status()
                if number >= _WARM_UP:
                    times[name].append((time.perf_counter() - started) * 1000)
    return times


def _report(times: dict[str, list[float]]) -> None:
    base = statistics.median(times["none"])
    for name, each in times.items():
        p50, p95 = statistics.median(each), statistics.quantiles(each, n=20)[-1]
        print(f"Langfuse {name:8} p50 {p50:6.1f} ms   p95 {p95:6.1f} ms   ratio {p50 / base:.2f}")


def _stop(apis: dict[str, Server]) -> None:
    for name, api in apis.items():
        started = time.perf_counter()
        os.kill(api.pid, signal.SIGTERM)
        os.waitid(os.P_PID, api.pid, os.WEXITED | os.WNOWAIT)
        print(f"Langfuse {name:8} gone {time.perf_counter() - started:.1f} s after SIGTERM")


# --- Langfuse, in a process of its own ------------------------------------------------------


def serve_langfuse(port: int, *, hangs: bool) -> None:
    """Take everything, and answer at once or never."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if hangs:
                Event().wait()
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--serve-langfuse", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--hang", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve_langfuse:
        serve_langfuse(arguments.serve_langfuse, hangs=arguments.hang)
    else:
        asyncio.run(main(arguments.questions))
