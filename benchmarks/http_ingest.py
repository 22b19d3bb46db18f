"""Documents over HTTP: how soon they are acknowledged, and what a second worker adds.

* uploads of 1 MB, one after the other, to an idle API: the time to `202`, bytes and job durable;
* the same file under many names and with other trailing bytes, so that each is parsed and none is
  embedded again: documents a minute with one worker and with two, each with one conversion child,
  in turns. A scan is nearly all parsing; a PDF with text, read in a fifth of a second, leaves
  a share to receiving and storing, which one worker does beside the parsing already.

    python benchmarks/http_ingest.py [--uploads 60] [--documents 24]
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen
from uuid import uuid4

import corpus
from loading import database
from ragcore.embedded import embedded_servers
from services import KEY, Server, api_of, environment_of, worker_of

DOCUMENTS = corpus.SHARED / "documents"
BOUNDARY = "ragcore-benchmark"
FINISHED = ("succeeded", "failed", "cancelled")


async def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="ragcore-bench-") as directory:
        Path(directory).chmod(0o711)
        data_dir = Path(directory) / "data"
        async with (
            database(None) as url,
            embedded_servers(data_dir, postgres=False) as servers,
        ):
            environment = environment_of(url, servers.redis_url, data_dir)
            with api_of(environment) as api:
                _report_acknowledging(api, arguments.uploads)
                environment["RAGCORE_CONVERSION__PROCESSES"] = "1"
                for name, count in (("scan.pdf", 1), ("word_processor.pdf", 4)):
                    _report_workers(environment, api, name, count * arguments.documents)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--uploads", type=int, default=60)
    parser.add_argument("--documents", type=int, default=24)
    return parser.parse_args()


def _report_acknowledging(api: Server, count: int) -> None:
    text = "".join(sentence + "\n" for sentence in corpus.sentences()).encode()[: 2**20]
    times = []
    for number in range(-5, count):  # the first ones warm up
        started = time.perf_counter()
        jobs = _upload(api, "acknowledge", f"{number}.txt", b"%d\n" % number + text)
        if number >= 0:
            times.append(time.perf_counter() - started)
        _post(api, f"/jobs/{jobs[0]['job_id']}/cancel")
    p95 = statistics.quantiles(times, n=20)[-1]
    print(
        f"202 for an upload of 1 MB: p50 {1000 * statistics.median(times):.1f} ms,"
        f" p95 {1000 * p95:.1f} ms",
        flush=True,
    )


def _report_workers(environment: Mapping[str, str], api: Server, name: str, count: int) -> None:
    content = (DOCUMENTS / name).read_bytes()
    rates: dict[int, list[float]] = {1: [], 2: []}
    _minutes(environment, api, 1, content, 1)  # embeds what the others find in the cache
    for _ in range(2):
        for workers in rates:
            rates[workers].append(count / _minutes(environment, api, workers, content, count))
    for workers, seen in rates.items():
        some = f"{workers} worker{'s'[: workers - 1]}"
        print(f"{name}, {some}: {statistics.mean(seen):.0f} documents/min")
    print(f"  ratio {statistics.mean(rates[2]) / statistics.mean(rates[1]):.2f}", flush=True)


def _minutes(
    environment: Mapping[str, str], api: Server, workers: int, content: bytes, count: int
) -> float:
    """Ingest so many documents with so many workers that are ready, and return the minutes."""
    with ExitStack() as stack:
        for _ in range(workers):
            stack.enter_context(worker_of(environment))
        # Each worker opens everything and starts its child with its first document.
        _wait_for_jobs(api, [_upload_pdf(api, content) for _ in range(2 * workers)])
        started = time.perf_counter()
        _wait_for_jobs(api, [_upload_pdf(api, content) for _ in range(count)])
        return (time.perf_counter() - started) / 60


def _upload_pdf(api: Server, content: bytes) -> str:
    other = content + b"\n%" + uuid4().hex.encode()
    return str(_upload(api, "parse", f"{uuid4().hex}.pdf", other)[0]["job_id"])


def _wait_for_jobs(api: Server, job_ids: Sequence[str]) -> None:
    for job_id in job_ids:
        while (job := _get(api, f"/jobs/{job_id}?wait=30"))["status"] not in FINISHED:
            pass
        if job["status"] != "succeeded":
            raise RuntimeError(f"job {job_id} ended as {job['status']}: {job['error']}")


def _upload(api: Server, collection: str, filename: str, content: bytes) -> list[dict[str, Any]]:
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="collection"\r\n\r\n{collection}'
        f'\r\n--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{filename}"'
        "\r\nContent-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    jobs: list[dict[str, Any]] = _post(api, "/ingest", body, kind)["jobs"]
    return jobs


def _post(
    api: Server, path: str, body: bytes = b"", content_type: str = "application/json"
) -> dict[str, Any]:
    return _answer(api, path, data=body, headers={"Content-Type": content_type})


def _get(api: Server, path: str) -> dict[str, Any]:
    return _answer(api, path)


def _answer(api: Server, path: str, **parts: Any) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {KEY}", **parts.pop("headers", {})}
    request = Request(f"http://127.0.0.1:{api.port}{path}", headers=headers, **parts)  # noqa: S310
    with urlopen(request) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
        return found


if __name__ == "__main__":
    asyncio.run(main())
