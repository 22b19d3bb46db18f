"""One frozen tree of settings, read once. Every default has its unit in its name or its text.

Settings come from `RAGCORE_…` environment variables (nested with `__`:
`RAGCORE_CONVERSION__TIMEOUT_SECONDS=300`) over a TOML file named by `RAGCORE_CONFIG_FILE` or given
with `--config`. Secrets have no defaults.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

Language = Annotated[str, Field(pattern="^[a-z]{2}$")]
"""ISO 639-1."""
ModelName = Annotated[str, Field(min_length=1)]
BucketName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]$")]
CollectionName = Annotated[str, Field(pattern="^[a-z0-9_-]{1,48}$")]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def default_data_dir() -> Path:
    """`/var/lib/ragcore` for root (the unprivileged server user can reach it), else the user's."""
    if os.geteuid() == 0:
        return Path("/var/lib/ragcore")
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "ragcore"


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConversionSettings(_Group):
    """Reading files: each conversion runs in a child process under these limits."""

    processes: int = Field(default=2, ge=1, description="Conversion children kept warm.")
    timeout_seconds: float = Field(
        default=300.0, gt=0, description="Wall-clock limit of one document; the child is killed."
    )
    memory_mb: int = Field(
        default=3072, ge=512, description="Memory limit of one child, in MiB; it is killed."
    )
    max_file_mb: int = Field(default=200, ge=1, description="Largest file accepted, in MiB.")
    small_file_kb: int = Field(
        default=1024,
        ge=0,
        description="Files up to so many KiB don't wait for larger ones: when those keep all"
        " children busy, small files have one of their own; 0: they wait.",
    )
    max_pages: int = Field(default=2000, ge=1, description="Most pages of one document.")
    max_image_megapixels: int = Field(
        default=100, ge=1, description="Largest picture decoded, in millions of pixels."
    )
    window_pages: int = Field(
        default=20, ge=1, description="Pages of a PDF held in memory at a time."
    )
    recycle_after: int = Field(
        default=200, ge=1, description="Documents a child reads before a fresh one replaces it."
    )
    pdf_profile: Literal["fast", "layout", "full"] = Field(
        default="fast",
        description="How PDF pages are laid out: by rules, an ONNX model, or Docling's models.",
    )
    ocr: Literal["auto", "off", "force"] = Field(
        default="auto",
        description="Recognise scanned pages: where text is missing, never, always.",
    )
    ocr_languages: tuple[str, ...] = Field(
        default=("rus", "eng"), description="Tesseract language packs."
    )
    artifacts: Path | None = Field(
        default=None, description="Folder with Docling's own models, for `pdf_profile=full`."
    )


class ChunkingSettings(_Group):
    """Cutting documents into chunks."""

    max_tokens: int = Field(
        default=384, ge=32, le=8192, description="Longest chunk, headings included, in tokens."
    )


class EmbeddingSettings(_Group):
    """The embedding model."""

    provider: Literal["bundled", "ollama"] = Field(
        default="bundled", description="`bundled` needs nothing; `ollama` needs a server."
    )
    model: str | None = Field(
        default=None,
        description="Model name; None: the provider's multilingual default.",
    )
    threads: int = Field(default=2, ge=1, description="Embedding threads of one process.")
    engine: Literal["auto", "onnx", "native"] = Field(
        default="auto", description="Bundled model: ONNX Runtime, its own C code, or the better."
    )
    batch_tokens: int = Field(
        default=4096, ge=64, description="Tokens sent to the model in one batch."
    )
    concurrency: int = Field(
        default=4, ge=1, description="Batches of one document in flight to a remote model."
    )
    timeout_seconds: float = Field(default=60.0, gt=0, description="Limit of one request.")
    query_prefix: str | None = Field(default=None, description="Overrides the model's own.")
    document_prefix: str | None = Field(default=None, description="Overrides the model's own.")
    tokenizer_file: Path | None = Field(
        default=None, description="`tokenizer.json` of a remote model, for exact token counts."
    )
    max_tokens: int | None = Field(
        default=None, ge=16, description="Longest text a remote model reads, in tokens."
    )


class OllamaSettings(_Group):
    """Where Ollama is, and how much is asked of it."""

    url: str = Field(default="http://127.0.0.1:11434", description="Base address.")
    urls: tuple[str, ...] = Field(
        default=(),
        description="Base addresses of several, among which requests are balanced, in place of"
        ' `url`: `["http://gpu1:11434", "http://gpu2:11434"]`.',
    )
    concurrency: int = Field(
        default=4,
        ge=1,
        description="Requests at a time to one model of one address, of all processes together;"
        " questions may use one more.",
    )
    wait_seconds: float = Field(
        default=30.0,
        gt=0,
        description="How long a question waits for its turn; documents wait as long as it takes.",
    )
    attempts: int = Field(
        default=3, ge=1, description="Most tries of one request that fails for a passing reason."
    )
    failures: int = Field(
        default=5, ge=1, description="Failures in a row after which an address is left out."
    )
    pause_seconds: float = Field(
        default=5.0,
        gt=0,
        description="For how long; doubles with each trial that fails, up to twelvefold.",
    )

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every address that is used."""
        return self.urls or (self.url,)


class GenerationSettings(_Group):
    """The language model that words answers; without one they quote the passages."""

    provider: Literal["none", "ollama"] = Field(
        default="none", description="`none`: the best sentences of the passages themselves."
    )
    model: str = Field(default="llama3.2", min_length=1, description="Model name at the provider.")
    models: dict[Language, ModelName] = Field(
        default={},
        description='Another model for questions in a language: `{"ru": "qwen2.5:7b"}`.',
    )
    collection_models: dict[CollectionName, ModelName] = Field(
        default={},
        description="Another model for questions about a single collection, whatever their"
        ' language: `{"contracts": "gemma3:12b"}`.',
    )
    temperature: float = Field(
        default=0.0, ge=0, le=2, description="0: the likeliest words; more: more variety."
    )
    keep_alive: str = Field(
        default="5m",
        pattern=r"^-?\d+(\.\d+)?(ms|s|m|h)?$",
        description="How long Ollama keeps the model loaded after an answer; seconds without a"
        " unit, negative: for ever.",
    )
    condense: bool = Field(
        default=True,
        description="Make a question that stands alone of a follow-up before searching.",
    )
    strict: bool = Field(
        default=False,
        description="Leave out sentences that no passage bears out; nothing is streamed before"
        " that is checked.",
    )
    prompts_dir: Path | None = Field(
        default=None,
        description="Prompts that replace the shipped ones: `answer.ru.md` for all collections,"
        " `reports/answer.ru.md` for one.",
    )
    context_tokens: int = Field(
        default=8192, ge=1024, description="Context of the model, prompt and answer together."
    )
    answer_tokens: int = Field(default=1024, ge=64, description="Longest answer, in tokens.")
    timeout_seconds: float = Field(default=120.0, gt=0, description="Limit of one answer.")


class PriceSettings(_Group):
    """What a language model costs."""

    input: float = Field(ge=0, description="US dollars for a million tokens that it reads.")
    output: float = Field(ge=0, description="US dollars for a million tokens that it writes.")


class LangfuseSettings(_Group):
    """Where traces of questions and jobs go; none are made until the secret key is set."""

    url: str = Field(
        default="http://127.0.0.1:3000", pattern="^https?://", description="Base address."
    )
    public_key: str = Field(default="", description="Public key of the project.")
    secret_key: SecretStr | None = Field(
        default=None, min_length=1, description="Secret key of the project."
    )
    content: Literal["full", "masked", "none"] = Field(
        default="full",
        description="What is told of questions, passages, prompts, answers and comments: all,"
        " without addresses and long numbers, or nothing.",
    )
    masks: tuple[str, ...] = Field(
        default=(), description="Regular expressions that `masked` hides as well."
    )
    sample: float = Field(
        default=1.0, ge=0, le=1, description="Share of questions and jobs that are traced."
    )
    environment: str = Field(
        default="default",
        pattern="^[a-z0-9_-]{1,40}$",
        description="Under which Langfuse files what comes from here; not `langfuse…`.",
    )
    timeout_seconds: float = Field(default=5.0, gt=0, description="Limit of one request.")
    prompts: bool = Field(
        default=False,
        description="Take prompts that are managed there, `answer.ru` or `reports/answer.ru`, in"
        " place of the files of these names.",
    )
    prompt_label: str = Field(
        default="production", min_length=1, description="Label of the versions that are taken."
    )
    prompts_every_seconds: float = Field(
        default=60.0, gt=0, description="How often they are fetched again."
    )
    prices: dict[ModelName, PriceSettings] = Field(
        default={},
        description='Prices of models, for cost: `{"qwen2.5:7b": {"input": 0.1, "output": 0.2}}`.',
    )


class SearchSettings(_Group):
    """Finding passages."""

    top_k: int = Field(default=6, ge=1, le=100, description="Passages returned by default.")
    candidates: int = Field(
        default=50, ge=10, le=500, description="Proposals taken from each leg before fusion."
    )
    exact_rows: int = Field(
        default=2000, ge=0, description="Filters that match at most so many chunks scan exactly."
    )
    merge_neighbours: bool = Field(
        default=False, description="Join neighbouring passages under the same heading."
    )
    rewrites: int = Field(
        default=0,
        ge=0,
        le=5,
        description="Other wordings of a question that the language model adds and that are"
        " searched for as well; 0: none, the model is not asked.",
    )
    rewrite_timeout_seconds: float = Field(
        default=15.0, gt=0, description="After so long the question is searched for by itself."
    )


class RerankSettings(_Group):
    """Ordering the best passages anew by something that reads each with the question."""

    by: Literal["none", "language_model", "cross_encoder", "postprocessor"] = Field(
        default="none",
        description="The language model of answers, an ONNX cross-encoder, any LlamaIndex node"
        " postprocessor; `none`: they stay in the order of the search.",
    )
    passages: int = Field(default=12, ge=2, le=100, description="Passages that are read.")
    timeout_seconds: float = Field(
        default=20.0, gt=0, description="After so long they stay in the order of the search."
    )
    model: ModelName | None = Field(
        default=None, description="Language model to ask; None: the one that words answers."
    )
    directory: Path | None = Field(
        default=None, description="Folder of a cross-encoder: `model.onnx` and `tokenizer.json`."
    )
    threads: int = Field(default=1, ge=1, description="Threads that a cross-encoder computes on.")
    max_tokens: int = Field(
        default=512, ge=32, le=8192, description="Of question and passage, read by a cross-encoder."
    )
    postprocessor: str | None = Field(
        default=None,
        pattern=r"^[\w.]+:\w+$",
        description="`package.module:Name` of a node postprocessor's class, or of a function that"
        " makes one.",
    )
    options: dict[str, Any] = Field(default={}, description="What it is called with.")


class AccessSettings(_Group):
    """Who may call the API."""

    require_key: bool = Field(
        default=False,
        description="Ask for a key on loopback of the embedded mode, too; elsewhere it is a must.",
    )
    admin_key: SecretStr | None = Field(
        default=None,
        min_length=24,
        description="A key that may do everything, for the first start of a stack.",
    )
    requests_per_minute: int = Field(
        default=600, ge=0, description="Requests of one key in a minute; 0: no limit."
    )
    cors_origins: tuple[str, ...] = Field(
        default=(), description="Web origins whose pages may call the API from a browser."
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        description="Names besides loopback's under which a service without keys may be called.",
    )
    open_metrics: bool = Field(
        default=False,
        description="Answer `/metrics` without a key, for a Prometheus beside the service;"
        " otherwise it takes an administrator's.",
    )


class CallbackSettings(_Group):
    """Telling a `callback_url` how a job ended."""

    secret: SecretStr | None = Field(
        default=None, description="Signs callbacks (HMAC-SHA256 in `X-Ragcore-Signature`)."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Hosts with private addresses that may be called, such as `n8n`;"
        " loopback's may be where no key is asked for.",
    )
    attempts: int = Field(default=8, ge=1, description="Deliveries tried before giving up.")
    timeout_seconds: float = Field(default=10.0, gt=0, description="Limit of one delivery.")


class FetchSettings(_Group):
    """Fetching a document by its URL."""

    timeout_seconds: float = Field(default=60.0, gt=0, description="Limit of the whole download.")
    max_redirects: int = Field(default=5, ge=0, description="Redirects followed.")
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Hosts with private addresses that may be fetched from."
    )
    ca_file: Path | None = Field(
        default=None, description="Certificates to trust besides the well-known ones."
    )


class BucketServerSettings(_Group):
    """An S3 server and the buckets of it that documents may come from."""

    url: str = Field(
        pattern=r"^https?://[^/@\s]+/?$",
        description="`https://s3.example.org`, `http://minio:9000`.",
    )
    buckets: tuple[BucketName, ...] = Field(
        min_length=1, description="Buckets that may be read; no others are."
    )
    access_key: SecretStr | None = Field(default=None, description="None: anonymous.")
    secret_key: SecretStr | None = Field(default=None, description="Goes with `access_key`.")
    region: str | None = Field(default=None, description="None: the server is asked.")
    path_style: bool = Field(
        default=True, description="The bucket is in the path; false: in the host's name."
    )
    ca_file: Path | None = Field(
        default=None, description="Certificates to trust instead of the well-known ones."
    )
    collections: tuple[str, ...] = Field(
        default=(), description="Collections its buckets may be ingested into; none named: all."
    )
    timeout_seconds: float = Field(default=60.0, gt=0, description="Limit of one read.")


class BucketSyncSettings(_Group):
    """A bucket that a collection is kept alike."""

    bucket: BucketName = Field(description="One of a configured server's.")
    prefix: str = Field(default="", max_length=1024, description="Only objects below it.")
    collection: str | None = Field(default=None, description="None: RAGCORE_COLLECTION.")
    include: tuple[str, ...] = Field(default=(), description="Patterns of wanted objects.")
    exclude: tuple[str, ...] = Field(default=(), description="Patterns of unwanted ones.")
    delete_missing: bool = Field(
        default=False, description="Delete documents whose objects are gone."
    )
    max_delete_share: float = Field(
        default=0.2, ge=0, le=1, description="Most of the known objects that may be gone at once."
    )
    every_seconds: float = Field(
        default=0, ge=0, description="How often it is listed; 0: only on request."
    )


class BucketSettings(_Group):
    """Buckets that documents come from."""

    servers: dict[str, BucketServerSettings] = Field(
        default={},
        description="S3 servers by a name of yours: `RAGCORE_BUCKETS__SERVERS__MINIO__URL` …",
    )
    syncs: dict[str, BucketSyncSettings] = Field(
        default={},
        description="What is kept alike, by a name of yours:"
        " `RAGCORE_BUCKETS__SYNCS__REPORTS__BUCKET` …",
    )
    threads: int = Field(default=8, ge=1, description="Requests to bucket servers at once.")
    hook_secret: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="What MinIO sends as its `auth_token`; without it `/hooks/minio` is closed.",
    )
    events_url: SecretStr | None = Field(
        default=None,
        description="A Redis that MinIO writes events to; None: the one of RAGCORE_REDIS_URL.",
    )
    events_key: str | None = Field(
        default=None, min_length=1, description="Name of that list of events; None: there is none."
    )


class RetentionSettings(_Group):
    """What is kept for how long; 0 keeps it for ever."""

    finished_jobs_days: int = Field(default=30, ge=0, description="Finished jobs, in days.")
    audit_days: int = Field(default=365, ge=0, description="The audit trail, in days.")
    unused_vectors_days: int = Field(
        default=90, ge=0, description="Cached vectors that nobody asked for, in days."
    )


class ReindexSettings(_Group):
    """Moving collections to another embedding model or chunker."""

    keep_days: int = Field(
        default=7,
        ge=0,
        description="How long what answered before is kept, and kept up to date, for going back,"
        " in days; 0: it is dropped within a minute of the switch.",
    )


class WorkerSettings(_Group):
    """The worker process."""

    jobs: int | None = Field(
        default=None,
        ge=1,
        description="Documents at once; None: one more than conversion children.",
    )
    metrics_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port of the worker's own `/metrics` and `/health`; 0: none. Of several"
        " workers of `ragcore up`, each has the next one.",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address of that port.")
    grace_seconds: float = Field(
        default=10.0, ge=0, description="How long jobs may go on after SIGTERM."
    )
    niceness: int = Field(
        default=10,
        ge=0,
        le=19,
        description="How far the worker and its children stand back for the processor, so that"
        " questions go first.",
    )


class DiskSettings(_Group):
    """When to refuse documents for want of room."""

    min_free_mb: int = Field(
        default=512, ge=0, description="MiB that must stay free in the data directory; 0: any."
    )


class Settings(BaseSettings):
    """Everything ragcore can be told. `ragcore doctor` prints it without its secrets."""

    model_config = SettingsConfigDict(
        env_prefix="RAGCORE_",
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # a misspelt name may have a secret for its value
    )

    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Embedded servers, stored files, logs.",
    )
    database_url: SecretStr | None = Field(
        default=None, description="A PostgreSQL with pgvector to use instead of the embedded one."
    )
    redis_url: SecretStr | None = Field(
        default=None, description="A Redis or Valkey to use instead of the embedded one."
    )
    database_pool: int = Field(default=10, ge=2, description="Most connections of one process.")
    blobs_url: SecretStr | None = Field(
        default=None,
        description="`s3://key:secret@host:port/bucket?secure=true`; None: a folder in data_dir.",
    )
    collection: str = Field(default="default", description="Collection used when none is named.")
    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8700, ge=0, le=65535, description="Port of the API; 0: a free one.")
    workers: int = Field(default=1, ge=0, description="Worker processes of `ragcore up`.")
    detach: bool = Field(default=False, description="Run `ragcore up` in the background.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least important log lines shown."
    )
    log_format: Literal["human", "json"] = Field(
        default="human", description="Log lines for people, or one JSON object a line."
    )
    conversion: ConversionSettings = ConversionSettings()
    chunking: ChunkingSettings = ChunkingSettings()
    embedding: EmbeddingSettings = EmbeddingSettings()
    ollama: OllamaSettings = OllamaSettings()
    generation: GenerationSettings = GenerationSettings()
    langfuse: LangfuseSettings = LangfuseSettings()
    search: SearchSettings = SearchSettings()
    rerank: RerankSettings = RerankSettings()
    access: AccessSettings = AccessSettings()
    callbacks: CallbackSettings = CallbackSettings()
    fetch: FetchSettings = FetchSettings()
    buckets: BucketSettings = BucketSettings()
    retention: RetentionSettings = RetentionSettings()
    reindex: ReindexSettings = ReindexSettings()
    worker: WorkerSettings = WorkerSettings()
    disk: DiskSettings = DiskSettings()

    def secrets(self) -> frozenset[str]:
        """Return every secret, and the password of every address among them."""
        found = frozenset(_secrets_in(self))
        return found | {password for each in found if (password := _password_in(each))}

    @property
    def is_embedded(self) -> bool:
        """Whether the database is ragcore's own, started for whoever opens the data directory."""
        return self.database_url is None

    @property
    def is_loopback(self) -> bool:
        """Whether the API listens where only this machine reaches it."""
        return self.host in _LOOPBACK

    @property
    def needs_key(self) -> bool:
        """Whether callers of the API must show a key."""
        return self.access.require_key or not (self.is_embedded and self.is_loopback)

    @property
    def callback_hosts(self) -> tuple[str, ...]:
        """Hosts with private addresses that may be called back.

        Where no key is asked for, callers are programs of this machine, and so are those they name.
        """
        return self.callbacks.allowed_hosts + (() if self.needs_key else _LOOPBACK)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings)
        if config_file := os.environ.get("RAGCORE_CONFIG_FILE"):
            sources += (TomlConfigSettingsSource(settings_cls, config_file),)
        return sources


def _secrets_in(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for _, each in value:
            yield from _secrets_in(each)
    elif isinstance(value, Mapping):
        yield from _secrets_in(tuple(value.values()))
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _secrets_in(each)


def _password_in(text: str) -> str | None:
    """Return the password of an address, as it is when it is used."""
    try:
        password = urlsplit(text).password
    except ValueError:  # no address
        return None
    return unquote(password) if password else None
