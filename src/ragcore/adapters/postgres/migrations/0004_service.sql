-- What the service needs besides documents: keys, the audit trail, callbacks, documents that expire.

ALTER TABLE ragcore.documents ADD COLUMN expires_at timestamptz;
CREATE INDEX documents_expiring ON ragcore.documents (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE ragcore.versions ADD COLUMN expires_at timestamptz;  -- as submitted, like title and uri

-- Documents that do not answer yet: looked for by name, and by what was submitted.
CREATE INDEX documents_pending ON ragcore.documents (collection, document_id) WHERE version_id IS NULL;

ALTER TABLE ragcore.jobs
    ADD COLUMN crashes      integer NOT NULL DEFAULT 0,  -- workers that held it and were not heard of again
    ADD COLUMN submitted_by text,
    ADD COLUMN request_id   text;
-- Lists go by time and tell equal times apart by id.
DROP INDEX ragcore.jobs_newest;
CREATE INDEX jobs_newest ON ragcore.jobs (created_at DESC, job_id);
CREATE INDEX jobs_collection ON ragcore.jobs (collection, created_at DESC, job_id);
CREATE INDEX jobs_status ON ragcore.jobs (status, created_at DESC, job_id);
CREATE INDEX jobs_finished ON ragcore.jobs (finished_at) WHERE finished_at IS NOT NULL;

-- A request of several files is one request, with one key.
ALTER TABLE ragcore.idempotency_keys ADD COLUMN job_ids uuid[];
UPDATE ragcore.idempotency_keys SET job_ids = ARRAY[job_id];
ALTER TABLE ragcore.idempotency_keys ALTER COLUMN job_ids SET NOT NULL, DROP COLUMN job_id;
CREATE INDEX idempotency_keys_age ON ragcore.idempotency_keys (created_at);

-- Deliveries owed, recorded with the job: due when it has finished. They go with it.
CREATE TABLE ragcore.callbacks (
    job_id       uuid        PRIMARY KEY REFERENCES ragcore.jobs ON DELETE CASCADE,
    url          text        NOT NULL,
    attempts     integer     NOT NULL DEFAULT 0,
    run_after    timestamptz NOT NULL DEFAULT now(),
    settled_at   timestamptz,           -- delivered, or given up
    error        text                   -- of the last attempt
);
CREATE INDEX callbacks_due ON ragcore.callbacks (run_after) WHERE settled_at IS NULL;

CREATE TABLE ragcore.api_keys (
    key_id              uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    name                text        NOT NULL,
    secret_hash         bytea       NOT NULL UNIQUE,  -- SHA-256: secrets are long and random
    scopes              text[]      NOT NULL,
    collections         text[],                       -- null: every collection
    requests_per_minute integer,                      -- null: as the settings say
    created_at          timestamptz NOT NULL DEFAULT now(),
    expires_at          timestamptz,
    last_used_at        timestamptz,
    revoked_at          timestamptz
);

CREATE TABLE ragcore.audit (
    entry_no   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT now(),
    action     text        NOT NULL,
    actor      text        NOT NULL,
    collection text,
    target     text,
    request_id text,
    details    jsonb       NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_at ON ragcore.audit (at DESC);
