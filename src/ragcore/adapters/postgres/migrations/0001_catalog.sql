-- The catalogue: collections, documents, versions, jobs, idempotency keys, cached embeddings.
-- Chunks and their words live in tables of their own per collection (collection.sql).

CREATE TABLE ragcore.collections (
    name        text        PRIMARY KEY CHECK (name ~ '^[a-z0-9_-]{1,48}$'),
    embedding   jsonb       NOT NULL,
    chunker     text        NOT NULL,
    language    text,
    strict      boolean     NOT NULL DEFAULT false,
    generation  integer     NOT NULL DEFAULT 1,
    created_at  timestamptz NOT NULL DEFAULT now()
);

-- document_no is never reused: a job that outlives its deleted document finds nobody to write to,
-- even when the same document_id was submitted again.
CREATE TABLE ragcore.documents (
    document_no   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    collection    text        NOT NULL REFERENCES ragcore.collections ON DELETE CASCADE,
    document_id   text        NOT NULL,
    title         text,
    uri           text,
    mime_type     text,
    language      text,
    metadata      jsonb       NOT NULL DEFAULT '{}',
    extracted     jsonb       NOT NULL DEFAULT '{}',
    last_sequence bigint      NOT NULL DEFAULT 0,
    version_id    uuid,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (collection, document_id)
);
CREATE INDEX documents_metadata ON ragcore.documents USING gin (metadata jsonb_path_ops);
CREATE INDEX documents_uri ON ragcore.documents (collection, uri) WHERE uri IS NOT NULL;

CREATE TABLE ragcore.versions (
    version_id  uuid        PRIMARY KEY,
    document_no bigint      NOT NULL REFERENCES ragcore.documents ON DELETE CASCADE,
    sequence    bigint      NOT NULL,
    state       text        NOT NULL DEFAULT 'pending'
                            CHECK (state IN ('pending', 'current', 'replaced', 'superseded', 'failed')),
    sha256      bytea       NOT NULL,
    size_bytes  bigint      NOT NULL,
    filename    text,
    mime_type   text,
    fingerprint text        NOT NULL,
    title       text,       -- as submitted; put on the document when the version is put in place
    uri         text,
    metadata    jsonb,      -- null: not given, the document keeps its own
    chunks      integer,
    pages       integer,
    language    text,
    report      jsonb,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (document_no, sequence)
);

CREATE TABLE ragcore.jobs (
    job_id          uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    collection      text        NOT NULL,
    document_id     text        NOT NULL,
    document_no     bigint      REFERENCES ragcore.documents ON DELETE SET NULL,
    version_id      uuid        REFERENCES ragcore.versions ON DELETE SET NULL,
    status          text        NOT NULL DEFAULT 'queued'
                                CHECK (status IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')),
    stage           text,
    progress        real        NOT NULL DEFAULT 0,
    outcome         text        CHECK (outcome IN ('created', 'updated', 'unchanged', 'superseded')),
    error           jsonb,
    priority        integer     NOT NULL DEFAULT 0,
    attempts        integer     NOT NULL DEFAULT 0,
    run_after       timestamptz NOT NULL DEFAULT now(),
    lease_owner     text,
    lease_token     uuid,
    lease_until     timestamptz,
    chunks          integer,
    pages           integer,
    language        text,
    timings_ms      jsonb       NOT NULL DEFAULT '{}',
    warnings        jsonb       NOT NULL DEFAULT '[]',
    created_at      timestamptz NOT NULL DEFAULT now(),
    started_at      timestamptz,
    finished_at     timestamptz
);
CREATE INDEX jobs_waiting ON ragcore.jobs (priority DESC, created_at) WHERE status = 'queued';
CREATE INDEX jobs_running ON ragcore.jobs (lease_until) WHERE status = 'running';
CREATE INDEX jobs_document ON ragcore.jobs (collection, document_id, created_at DESC);
CREATE INDEX jobs_newest ON ragcore.jobs (created_at DESC);
-- Deleting a document or a version sets these to null: without an index each deletion scans all jobs.
CREATE INDEX jobs_document_no ON ragcore.jobs (document_no);
CREATE INDEX jobs_version ON ragcore.jobs (version_id);

CREATE TABLE ragcore.idempotency_keys (
    scope      text        NOT NULL,
    key        text        NOT NULL,
    body_hash  bytea       NOT NULL,
    job_id     uuid        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, key)
);

-- Vectors by what they were computed from, so that unchanged text is never embedded again.
CREATE TABLE ragcore.embedding_cache (
    model_key text        NOT NULL,
    text_hash bytea       NOT NULL,
    vector    bytea       NOT NULL,  -- float32, little-endian
    used_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (model_key, text_hash)
);
