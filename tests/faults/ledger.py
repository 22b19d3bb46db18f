"""What was acknowledged against what is there: every document exactly once, as a clean run has it.

The clean run is made here and now, by the same pipeline on the same bytes in this process, where
nothing is killed.
"""

import hashlib
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import httpx

from faults.clients import COLLECTION, Deleted, History, Ingested, Log
from faults.payloads import Payload
from faults.stack import Stack
from ragcore.errors import RagError
from ragcore.ports import ConversionRequest
from ragcore.runtime import Runtime, open_runtime

_ENDED: Final = ("succeeded", "failed", "cancelled")
_SEARCHED: Final = 25
"""Documents, and as many deleted ones, that are asked for by their marker."""

Chunks = list[tuple[str, str]]
"""Id and text of each chunk, in order."""


@dataclass(slots=True)
class Ledger:
    """The sums, and every discrepancy by its kind."""

    acknowledged: int = 0
    """Uploads that were answered with 202."""
    documents: int = 0
    """That these were versions of."""
    in_place: int = 0
    """Documents that had to be there at the end."""
    chunks: int = 0
    deleted: int = 0
    failed_as_they_must: int = 0
    updates_failed: int = 0
    """Documents whose newest version can't be read: the one before must answer."""
    outcomes: Counter[str] = field(default_factory=Counter)
    orphans_swept: int = 0
    wrongs: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def is_balanced(self) -> bool:
        return not any(self.wrongs.values())

    def wrong(self, kind: str, what: str) -> None:
        self.wrongs[kind].append(what)


KINDS: Final = (
    "lost",
    "duplicated",
    "stuck",
    "other content than a clean run's",
    "came back after deletion",
    "ended otherwise than it must",
    "rows without owner",
    "files missing or left behind",
    "answers outside the contract",
)
"""Every kind of discrepancy; the third column of a passed ledger is all zeros."""


async def account(stack: Stack, log: Log) -> Ledger:
    """Compare a drained, running stack with what its clients were told."""
    ledger = Ledger(acknowledged=log.acknowledged, documents=log.documents)
    for what in log.wrongs:
        ledger.wrong("answers outside the contract", what)
    async with open_runtime(stack.settings) as runtime:
        clean = CleanRun(runtime)
        expected = await _check_documents(stack, log, ledger, clean)
        _check_rows(stack, ledger)
        ledger.orphans_swept = await replace(runtime.sweep_orphans, grace_seconds=0.0)()
    _check_files(stack, ledger, expected)
    _check_searches(stack, log, ledger, expected)
    return ledger


class CleanRun:
    """The pipeline's own word on some bytes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._known: dict[tuple[str, Payload], Chunks | str] = {}

    async def result(self, document_id: str, payload: Payload) -> Chunks | str:
        """Return the chunks, or the code of the error that the file ends in."""
        key = (document_id, payload)
        if key not in self._known:
            self._known[key] = await self._convert(document_id, payload)
        return self._known[key]

    async def _convert(self, document_id: str, payload: Payload) -> Chunks | str:
        ingest = self._runtime.work.ingest
        with tempfile.TemporaryDirectory(prefix="ragcore-clean-") as directory:
            original = Path(directory, "original")
            original.write_bytes(payload.content)
            request = ConversionRequest(
                path=original,
                filename=payload.filename,
                mime_type=None,
                directory=Path(directory),
                max_tokens=ingest.max_tokens,
                tokenizer=ingest.tokenizer,
                prefix=ingest.embedding.spec.document_prefix,
                seed=document_id,
            )
            try:
                document = await self._runtime.converter.convert(request)
            except RagError as error:
                return error.code
        return [(chunk.chunk_id, chunk.text) for chunk in document.chunks]


# --- documents and jobs ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Job:
    status: str
    outcome: str | None
    error: str | None


async def _check_documents(
    stack: Stack, log: Log, ledger: Ledger, clean: CleanRun
) -> Mapping[str, Payload]:
    """Check each document's jobs and chunks; return what must be in place by document id."""
    jobs = _jobs(stack)
    stored = _stored(stack)
    listed = Counter(_listed(stack))
    for document_id, times in listed.items():
        if times > 1:
            ledger.wrong("duplicated", f"{document_id} is listed {times} times")
    expected: dict[str, Payload] = {}
    for history in log.histories.values():
        if not history.events:
            continue
        for event in history.events:
            if isinstance(event, Ingested):
                await _check_job(event, history, jobs, ledger, clean)
        winner = await _winner(history, jobs, clean)
        if winner is None:
            _check_absent(history, stored, listed, ledger)
            continue
        expected[history.document_id] = winner.payload
        _check_superseded(history, winner, jobs, ledger)
        wanted = await clean.result(history.document_id, winner.payload)
        assert not isinstance(wanted, str)  # the winner can be read
        _check_present(history.document_id, wanted, stored, listed, ledger)
        ledger.updates_failed += winner is not history.living[-1]
    for document_id in (listed.keys() | stored.keys()) - log.histories.keys():
        ledger.wrong("duplicated", f"{document_id} is there and nobody sent it")
    return expected


async def _check_job(
    event: Ingested,
    history: History,
    jobs: Mapping[str, _Job],
    ledger: Ledger,
    clean: CleanRun,
) -> None:
    job = jobs.get(event.job_id)
    who = f"{history.document_id}, job {event.job_id}"
    if job is None:
        ledger.wrong("lost", f"{who} is not known any more")
        return
    ledger.outcomes[job.outcome or job.status] += 1
    if job.status not in _ENDED:
        ledger.wrong("stuck", f"{who} is {job.status}")
    elif job.status == "cancelled":
        if event in history.living and event.job_id not in history.cancelled:
            ledger.wrong("lost", f"{who} is cancelled and nobody asked for it")
    elif job.status == "failed":
        must = await clean.result(history.document_id, event.payload)
        if must == job.error:
            ledger.failed_as_they_must += 1
        else:
            code = must if isinstance(must, str) else "a clean run succeeds"
            ledger.wrong("lost", f"{who} failed with {job.error}; {code}")
    elif job.outcome != "superseded":
        must = await clean.result(history.document_id, event.payload)
        if isinstance(must, str):
            ledger.wrong("ended otherwise than it must", f"{who}: {job.outcome}, not {must}")


async def _winner(history: History, jobs: Mapping[str, _Job], clean: CleanRun) -> Ingested | None:
    """The newest version that can be read and was not cancelled."""
    for event in reversed(history.living):
        job = jobs.get(event.job_id)
        if (job is None or job.status != "cancelled") and not isinstance(
            await clean.result(history.document_id, event.payload), str
        ):
            return event
    return None


def _check_superseded(
    history: History, winner: Ingested, jobs: Mapping[str, _Job], ledger: Ledger
) -> None:
    job = jobs.get(winner.job_id)
    if job is not None and job.outcome == "superseded":
        ledger.wrong("lost", f"{history.document_id}: its newest version is called superseded")


def _check_absent(
    history: History,
    stored: Mapping[str, Chunks],
    listed: Mapping[str, int],
    ledger: Ledger,
) -> None:
    is_deleted = isinstance(history.events[-1], Deleted)
    ledger.deleted += is_deleted
    if history.document_id in listed or history.document_id in stored:
        kind = "came back after deletion" if is_deleted else "ended otherwise than it must"
        ledger.wrong(kind, f"{history.document_id} is there")


def _check_present(
    document_id: str,
    wanted: Chunks,
    stored: Mapping[str, Chunks],
    listed: Mapping[str, int],
    ledger: Ledger,
) -> None:
    ledger.in_place += 1
    ledger.chunks += len(wanted)
    got = stored.get(document_id, [])
    if document_id not in listed:
        ledger.wrong("lost", f"{document_id} is not listed")
    elif got == wanted:
        return
    elif len({text for _, text in got}) < len(got):
        ledger.wrong("duplicated", f"{document_id} has {len(got)} chunks, not {len(wanted)}")
    else:
        ledger.wrong("other content than a clean run's", f"{document_id}: {got} not {wanted}")


def _jobs(stack: Stack) -> dict[str, _Job]:
    query = "SELECT job_id::text, status, outcome, error ->> 'code' FROM ragcore.jobs"
    return {job_id: _Job(*rest) for job_id, *rest in stack.rows(query)}


def _stored(stack: Stack) -> dict[str, Chunks]:
    found: dict[str, Chunks] = defaultdict(list)
    query = (
        "SELECT document_id, id, metadata ->> 'text'"
        f' FROM vecs."{COLLECTION}" ORDER BY document_id, ordinal'
    )
    for document_id, chunk_id, text in stack.rows(query):
        found[document_id].append((chunk_id, text))
    return dict(found)


def _listed(stack: Stack) -> Sequence[str]:
    """Every document that the API lists, page by page."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = httpx.get(
            f"{stack.url}/documents",
            params={"collection": COLLECTION, "limit": 500, **cursor},
            timeout=60,
        ).json()
        found += [document["document_id"] for document in page["documents"]]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


# --- rows, files, answers ------------------------------------------------------------------------

_CHECKS: Final = {
    "chunks without document": """
        SELECT t.id FROM vecs."{c}" t
        LEFT JOIN ragcore.documents d ON d.document_no = t.document_no
        WHERE d.document_no IS NULL""",
    "chunks of documents that have no version in place": """
        SELECT t.id FROM vecs."{c}" t JOIN ragcore.documents d ON d.document_no = t.document_no
        WHERE d.version_id IS NULL""",
    "words without chunk": """
        SELECT DISTINCT p.chunk_no FROM ragcore."postings_{c}" p
        LEFT JOIN vecs."{c}" t ON t.chunk_no = p.chunk_no WHERE t.chunk_no IS NULL""",
    "words missing, or there twice": """
        WITH wanted AS (
            SELECT t.chunk_no, w.lexeme AS term, cardinality(w.positions) AS tf
            FROM vecs."{c}" t CROSS JOIN LATERAL unnest(to_tsvector(t.config::regconfig,
                ragcore.words_of(concat_ws(E'\\n', t.context, t.metadata ->> 'text')))) w
        ), got AS (SELECT chunk_no, term, tf FROM ragcore."postings_{c}")
        (TABLE wanted EXCEPT ALL TABLE got) UNION ALL (TABLE got EXCEPT ALL TABLE wanted)""",
    "counts of chunks that differ from the chunks": """
        WITH counted AS (
            SELECT language, config, sum(chunks)::bigint FROM ragcore.chunk_counts
            WHERE collection = '{c}' GROUP BY 1, 2 HAVING sum(chunks) <> 0
        ), wanted AS (SELECT language, config, count(*) FROM vecs."{c}" GROUP BY 1, 2)
        (TABLE counted EXCEPT TABLE wanted) UNION ALL (TABLE wanted EXCEPT TABLE counted)""",
    "counts of words that differ from the words": """
        SELECT counted, real FROM
            (SELECT sum(words) AS counted FROM ragcore.chunk_counts WHERE collection = '{c}') c,
            (SELECT sum(tf) AS real FROM ragcore."postings_{c}") p
        WHERE counted IS DISTINCT FROM real""",
    "documents whose version is not the current one": """
        SELECT d.document_id FROM ragcore.documents d
        JOIN ragcore.versions v ON v.version_id = d.version_id WHERE v.state <> 'current'""",
    "documents with two current versions": """
        SELECT document_no FROM ragcore.versions WHERE state = 'current'
        GROUP BY 1 HAVING count(*) > 1""",
    "versions still pending": "SELECT version_id FROM ragcore.versions WHERE state = 'pending'",
    "leases of ended jobs": """
        SELECT job_id FROM ragcore.jobs
        WHERE lease_token IS NOT NULL AND status NOT IN ('running')""",
}


def _check_rows(stack: Stack, ledger: Ledger) -> None:
    for what, query in _CHECKS.items():
        if found := stack.rows(query.replace("{c}", COLLECTION)):
            ledger.wrong("rows without owner", f"{what}: {len(found)}, such as {found[:3]}")


def _check_files(stack: Stack, ledger: Ledger, expected: Mapping[str, Payload]) -> None:
    """After the sweep: the files of each version in place, and no file that nobody needs."""
    kind = "files missing or left behind"
    root = stack.data_dir / "blobs" / "versions"
    folders = {path.name: {file.name for file in path.iterdir()} for path in root.iterdir()}
    there = {version: files for version, files in folders.items() if files}
    query = (
        "SELECT v.version_id::text, d.document_id FROM ragcore.versions v"
        " JOIN ragcore.documents d ON d.version_id = v.version_id"
    )
    in_place: dict[str, str] = dict(stack.rows(query))
    may_be_retried = {
        version
        for (version,) in stack.rows(
            "SELECT version_id::text FROM ragcore.versions WHERE state = 'failed'"
        )
    }
    for version, document_id in in_place.items():
        files = there.get(version, set())
        if files != {"original", "docling.json.gz", "document.md"}:
            ledger.wrong(kind, f"{document_id} has the files {sorted(files)}")
        elif _sha256((root / version / "original").read_bytes()) != _sha256(
            expected[document_id].content if document_id in expected else b""
        ):
            ledger.wrong("other content than a clean run's", f"the file of {document_id}")
    for version in there.keys() - in_place.keys() - may_be_retried:
        ledger.wrong(kind, f"{sorted(there[version])} of version {version}, which nobody needs")


def _check_searches(
    stack: Stack, log: Log, ledger: Ledger, expected: Mapping[str, Payload]
) -> None:
    """Ask for some documents by the word that only they hold, and for what is gone."""
    newest = list(expected.items())[-_SEARCHED:]
    for document_id, payload in newest:
        if document_id not in _found(stack, payload.marker):
            ledger.wrong("lost", f"{document_id} is not found by {payload.marker!r}")
    here = {payload.marker for payload in expected.values()}
    gone = [
        payload.marker
        for history in log.histories.values()
        for payload in history.payloads
        if payload.marker and payload.marker not in here
    ]
    for marker in gone[-_SEARCHED:]:
        if found := _found(stack, marker):
            ledger.wrong("came back after deletion", f"{marker!r} is found in {found}")


def _found(stack: Stack, marker: str) -> set[str]:
    """Ids of the documents whose passages hold a word."""
    question: dict[str, Any] = {"question": marker, "collection": COLLECTION, "mode": "keyword"}
    answer = httpx.post(f"{stack.url}/search", json=question, timeout=60)
    return {
        passage["document_id"]
        for passage in answer.json()["passages"]
        if marker in passage["text"] or marker in " ".join(passage["headings"])
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
