"""Post the sample documents to a running ragcore, follow their jobs, and ask questions.

    python samples/demo.py [URL] [--without-scans]

What any HTTP client would do: `POST /ingest`, `GET /jobs/{id}`, `POST /query`. Safe to repeat:
documents are known by their bytes, and those that are there already are answered at once.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

DOCUMENTS = Path(__file__).parent / "documents"
COLLECTION = "demo"
STAGES = ("fetching", "converting", "chunking", "embedding", "storing")
FINISHED = ("succeeded", "failed", "cancelled")
QUESTIONS = (
    "How long does the crossing take aboard Kittiwake?",
    "How many days are lost things kept?",
    "При какой скорости ветра запрещён выход в рейс?",
    "Чем посыпают трапы зимой?",
)
OF_THE_SCAN = "Какой причал закрыт на дноуглубительные работы?"
UNANSWERABLE = "What is the capital of Mongolia?"

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8700")
    parser.add_argument("--without-scans", action="store_true", help="there is no Tesseract")
    arguments = parser.parse_args()
    files = sorted(DOCUMENTS.iterdir())
    questions = [*QUESTIONS, OF_THE_SCAN, UNANSWERABLE]
    if arguments.without_scans:
        files = [file for file in files if "скан" not in file.name]
        questions.remove(OF_THE_SCAN)
    with httpx.Client(base_url=arguments.url, timeout=120) as api:
        jobs = post_all(api, files)
        failed = [job for job in follow(api, jobs) if job["status"] != "succeeded"]
        for question in questions:
            ask(api, question)
    return 1 if failed else 0


def post_all(api: httpx.Client, files: list[Path]) -> dict[str, dict[str, Any]]:
    """Hand every file over; each is safe once it is acknowledged. Returns jobs by file name."""
    say(f"Posting {len(files)} papers of Veresk Line, a ferry company that does not exist")
    console.print(
        f"\n$ curl -F file=@samples/documents/crew-handbook.md -F collection={COLLECTION}"
        f" {api.base_url}/ingest"
    )
    jobs = {}
    for file in files:
        with file.open("rb") as content:
            answer = api.post(
                "/ingest", data={"collection": COLLECTION}, files={"file": (file.name, content)}
            )
        jobs[file.name] = checked(answer)["jobs"][0]
    return jobs


def follow(api: httpx.Client, jobs: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Wait until every job has ended, with a bar for each, and tell how it ended."""
    console.print()
    columns = (TextColumn("{task.description:38}"), BarColumn(20), TextColumn("{task.fields[at]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        rows = {name: bars.add_task(name[:38], total=len(STAGES), at="queued") for name in jobs}
        for name, job in polled(api, jobs):
            bars.update(rows[name], completed=steps_done(job), at=job["stage"] or outcome_of(job))
    ended = list(jobs.values())
    if not console.is_terminal:
        for name, job in jobs.items():
            console.print(f"  {name:38} {outcome_of(job)}")
    return ended


def polled(
    api: httpx.Client, jobs: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each job whenever it was looked at, until none is left; `jobs` holds the newest."""
    waiting = dict(jobs)
    while waiting:
        for name, job in list(waiting.items()):
            jobs[name] = job = checked(api.get(job["status_url"]))
            if job["status"] in FINISHED:
                del waiting[name]
            yield name, job
        time.sleep(0.2 if waiting else 0)


def steps_done(job: dict[str, Any]) -> float:
    if job["status"] in FINISHED:
        return len(STAGES)
    return STAGES.index(job["stage"]) + job["progress"] if job["stage"] else 0.0


def outcome_of(job: dict[str, Any]) -> str:
    if job["error"]:
        return f"{job['status']}: {job['error']['code']}"
    chunks = f", {job['chunks']} chunks" if job["chunks"] else ""
    return f"{job['outcome'] or job['status']}{chunks}"


def ask(api: httpx.Client, question: str) -> None:
    """Print the answer with its citations."""
    say(question)
    answer = checked(api.post("/query", json={"question": question, "collection": COLLECTION}))
    console.print(f"\n{answer['answer']}", markup=False)
    for citation in answer["citations"]:
        page = f", page {citation['page']}" if citation["page"] else ""
        headings = " › ".join(citation["headings"])
        console.print(
            f"  [{citation['marker']}] {citation['title']}{page}: {headings}", markup=False
        )
        console.print(f"      “{' '.join(citation['quote'].split())}”", markup=False)


def checked(answer: httpx.Response) -> Any:
    """Return what was answered. Ends the demo with the service's own words otherwise."""
    if answer.is_success:
        return answer.json()
    problem = answer.json()
    console.print(f"{problem['code']}: {problem['detail']} (request {problem['request_id']})")
    raise SystemExit(1)


def say(text: str) -> None:
    console.print(f"\n== {text}", style="bold", markup=False)


if __name__ == "__main__":
    sys.exit(main())
