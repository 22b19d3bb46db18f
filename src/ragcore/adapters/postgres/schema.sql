-- Where the migrations end: for reading, never run. Written by test_schema.py.

CREATE SCHEMA ragcore;

CREATE FUNCTION ragcore.empty_words() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    EXECUTE format('TRUNCATE ragcore.%I', 'postings_' || TG_TABLE_NAME);
    DELETE FROM ragcore.chunk_counts WHERE collection = TG_TABLE_NAME;
    RETURN NULL;
END $$;

CREATE FUNCTION ragcore.fold_counts(folded text) RETURNS void
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF (SELECT count(*) FROM ragcore.chunk_counts WHERE collection = folded) < 200 THEN
        RETURN;
    END IF;
    WITH free AS MATERIALIZED (
        SELECT ctid FROM ragcore.chunk_counts WHERE collection = folded FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM ragcore.chunk_counts WHERE ctid IN (SELECT ctid FROM free) RETURNING *
    )
    INSERT INTO ragcore.chunk_counts
    SELECT collection, language, config, sum(chunks), sum(words)
    FROM gone
    GROUP BY collection, language, config
    HAVING sum(chunks) <> 0 OR sum(words) <> 0;
END $$;

CREATE FUNCTION ragcore.keep_words() RETURNS trigger
    LANGUAGE plpgsql
    AS $_$
DECLARE
    postings CONSTANT text := format('ragcore.%I', 'postings_' || TG_TABLE_NAME);
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        EXECUTE format($sql$
            WITH removed AS (
                DELETE FROM %s WHERE chunk_no IN (SELECT chunk_no FROM gone) RETURNING chunk_no, tf
            ), lengths AS (
                SELECT chunk_no, sum(tf) AS words FROM removed GROUP BY chunk_no
            )
            INSERT INTO ragcore.chunk_counts
            SELECT %L, language, config, -count(*), -coalesce(sum(words), 0)
            FROM gone LEFT JOIN lengths USING (chunk_no)
            GROUP BY language, config
        $sql$, postings, TG_TABLE_NAME);
    END IF;
    IF TG_OP IN ('UPDATE', 'INSERT') THEN
        -- ts_rank counts the words: normalization 2 divides a rank, whatever it is, by how many
        -- there are. To unnest them a second time costs ten times as much.
        EXECUTE format($sql$
            WITH read AS MATERIALIZED (
                SELECT chunk_no, language, config,
                       to_tsvector(config::regconfig,
                                   ragcore.words_of(concat_ws(E'\n', context, coalesce(
                                       metadata ->> 'text', ragcore.text_in_node(metadata)))))
                           AS words
                FROM added
            ), counted AS MATERIALIZED (
                SELECT chunk_no, language, config, words,
                       coalesce(round(ts_rank(words, 'a & b')
                                      / nullif(ts_rank(words, 'a & b', 2), 0))::int, 0) AS length
                FROM read
            ), written AS (
                INSERT INTO %s (chunk_no, tf, length, term)
                SELECT chunk_no, cardinality(positions), least(length, 32767), lexeme
                FROM counted CROSS JOIN LATERAL unnest(words)
                ORDER BY lexeme COLLATE "C", chunk_no
            )
            INSERT INTO ragcore.chunk_counts
            SELECT %L, language, config, count(*), sum(length)
            FROM counted
            GROUP BY language, config
        $sql$, postings, TG_TABLE_NAME);
    END IF;
    PERFORM ragcore.fold_counts(TG_TABLE_NAME);
    RETURN NULL;
END $_$;

CREATE FUNCTION ragcore.text_in_node(metadata jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
DECLARE
    node jsonb;
BEGIN
    node := (metadata ->> '_node_content')::jsonb;
    RETURN coalesce(node ->> 'text', node #>> '{text_resource,text}');
EXCEPTION WHEN invalid_text_representation THEN
    RETURN NULL;  -- some other client's key of that name: no reason to refuse its row
END $$;

CREATE FUNCTION ragcore.words_of(text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT CASE WHEN (cut.t ~ '[ёЁ̀-ͯᄀ-ᇿ゙゚­​﻿]'::text) THEN translate(NORMALIZE(cut.t, NFC), 'ёЁ́­​﻿'::text, 'еЕ'::text) ELSE cut.t END AS t FROM (SELECT CASE WHEN (octet_length($1) > 500000) THEN "left"($1, 250000) ELSE $1 END AS "case") cut(t));

CREATE TABLE ragcore.api_keys (
    key_id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    secret_hash bytea NOT NULL,
    scopes text[] NOT NULL,
    collections text[],
    requests_per_minute integer,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    last_used_at timestamp with time zone,
    revoked_at timestamp with time zone
);

CREATE TABLE ragcore.audit (
    entry_no bigint NOT NULL,
    at timestamp with time zone DEFAULT now() NOT NULL,
    action text NOT NULL,
    actor text NOT NULL,
    collection text,
    target text,
    request_id text,
    details jsonb DEFAULT '{}'::jsonb NOT NULL
);

ALTER TABLE ragcore.audit ALTER COLUMN entry_no ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ragcore.audit_entry_no_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE ragcore.callbacks (
    job_id uuid NOT NULL,
    url text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    run_after timestamp with time zone DEFAULT now() NOT NULL,
    settled_at timestamp with time zone,
    error text
);

CREATE TABLE ragcore.chunk_counts (
    collection text NOT NULL,
    language text,
    config text NOT NULL,
    chunks bigint NOT NULL,
    words bigint NOT NULL
);

CREATE TABLE ragcore.collections (
    name text NOT NULL,
    embedding jsonb NOT NULL,
    chunker text NOT NULL,
    language text,
    strict boolean DEFAULT false NOT NULL,
    generation integer DEFAULT 1 NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT collections_name_check CHECK ((name ~ '^[a-z0-9_-]{1,48}$'::text))
);

CREATE TABLE ragcore.documents (
    document_no bigint NOT NULL,
    collection text NOT NULL,
    document_id text NOT NULL,
    title text,
    uri text,
    mime_type text,
    language text,
    metadata jsonb DEFAULT '{}'::jsonb NOT NULL,
    extracted jsonb DEFAULT '{}'::jsonb NOT NULL,
    last_sequence bigint DEFAULT 0 NOT NULL,
    version_id uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone
);

ALTER TABLE ragcore.documents ALTER COLUMN document_no ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ragcore.documents_document_no_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE ragcore.embedding_cache (
    model_key text NOT NULL,
    text_hash bytea NOT NULL,
    vector bytea NOT NULL,
    used_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE ragcore.generation_documents (
    collection text NOT NULL,
    generation integer NOT NULL,
    document_no bigint NOT NULL,
    version_id uuid NOT NULL,
    chunks integer NOT NULL,
    failure jsonb
);

CREATE SEQUENCE ragcore.generation_numbers
    AS integer
    START WITH 2
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE ragcore.generations (
    collection text NOT NULL,
    generation integer NOT NULL,
    state text NOT NULL,
    table_name text NOT NULL,
    embedding jsonb NOT NULL,
    chunker text NOT NULL,
    job_id uuid,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    retired_at timestamp with time zone,
    CONSTRAINT generations_state_check CHECK ((state = ANY (ARRAY['filling'::text, 'ready'::text, 'retired'::text])))
);

CREATE TABLE ragcore.idempotency_keys (
    scope text NOT NULL,
    key text NOT NULL,
    body_hash bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    job_ids uuid[] NOT NULL
);

CREATE TABLE ragcore.job_objects (
    job_id uuid NOT NULL,
    key text NOT NULL COLLATE pg_catalog."C",
    action text NOT NULL,
    reason text,
    child_id uuid
);

CREATE TABLE ragcore.jobs (
    job_id uuid DEFAULT gen_random_uuid() NOT NULL,
    collection text NOT NULL,
    document_id text NOT NULL,
    document_no bigint,
    version_id uuid,
    status text DEFAULT 'queued'::text NOT NULL,
    stage text,
    progress real DEFAULT 0 NOT NULL,
    outcome text,
    error jsonb,
    priority integer DEFAULT 0 NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    run_after timestamp with time zone DEFAULT now() NOT NULL,
    lease_owner text,
    lease_token uuid,
    lease_until timestamp with time zone,
    chunks integer,
    pages integer,
    language text,
    timings_ms jsonb DEFAULT '{}'::jsonb NOT NULL,
    warnings jsonb DEFAULT '[]'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone,
    crashes integer DEFAULT 0 NOT NULL,
    submitted_by text,
    request_id text,
    kind text DEFAULT 'document'::text NOT NULL,
    parent_id uuid,
    arguments jsonb,
    result jsonb,
    CONSTRAINT jobs_outcome_check CHECK ((outcome = ANY (ARRAY['created'::text, 'updated'::text, 'unchanged'::text, 'superseded'::text]))),
    CONSTRAINT jobs_status_check CHECK ((status = ANY (ARRAY['queued'::text, 'running'::text, 'succeeded'::text, 'failed'::text, 'cancelled'::text])))
);

CREATE TABLE ragcore.migrations (
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

CREATE TABLE ragcore.sources (
    document_no bigint NOT NULL,
    collection text NOT NULL,
    bucket text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C"
);

CREATE TABLE ragcore.versions (
    version_id uuid NOT NULL,
    document_no bigint NOT NULL,
    sequence bigint NOT NULL,
    state text DEFAULT 'pending'::text NOT NULL,
    sha256 bytea NOT NULL,
    size_bytes bigint NOT NULL,
    filename text,
    mime_type text,
    fingerprint text NOT NULL,
    title text,
    uri text,
    metadata jsonb,
    chunks integer,
    pages integer,
    language text,
    report jsonb,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    expires_at timestamp with time zone,
    source jsonb,
    marks jsonb,
    CONSTRAINT versions_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'current'::text, 'replaced'::text, 'superseded'::text, 'failed'::text])))
);

ALTER TABLE ONLY ragcore.api_keys
    ADD CONSTRAINT api_keys_pkey PRIMARY KEY (key_id);

ALTER TABLE ONLY ragcore.api_keys
    ADD CONSTRAINT api_keys_secret_hash_key UNIQUE (secret_hash);

ALTER TABLE ONLY ragcore.audit
    ADD CONSTRAINT audit_pkey PRIMARY KEY (entry_no);

ALTER TABLE ONLY ragcore.callbacks
    ADD CONSTRAINT callbacks_pkey PRIMARY KEY (job_id);

ALTER TABLE ONLY ragcore.collections
    ADD CONSTRAINT collections_pkey PRIMARY KEY (name);

ALTER TABLE ONLY ragcore.documents
    ADD CONSTRAINT documents_collection_document_id_key UNIQUE (collection, document_id);

ALTER TABLE ONLY ragcore.documents
    ADD CONSTRAINT documents_pkey PRIMARY KEY (document_no);

ALTER TABLE ONLY ragcore.embedding_cache
    ADD CONSTRAINT embedding_cache_pkey PRIMARY KEY (model_key, text_hash);

ALTER TABLE ONLY ragcore.generation_documents
    ADD CONSTRAINT generation_documents_pkey PRIMARY KEY (collection, generation, document_no);

ALTER TABLE ONLY ragcore.generations
    ADD CONSTRAINT generations_pkey PRIMARY KEY (collection, generation);

ALTER TABLE ONLY ragcore.generations
    ADD CONSTRAINT generations_table_name_key UNIQUE (table_name);

ALTER TABLE ONLY ragcore.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (scope, key);

ALTER TABLE ONLY ragcore.job_objects
    ADD CONSTRAINT job_objects_pkey PRIMARY KEY (job_id, key);

ALTER TABLE ONLY ragcore.jobs
    ADD CONSTRAINT jobs_pkey PRIMARY KEY (job_id);

ALTER TABLE ONLY ragcore.migrations
    ADD CONSTRAINT migrations_pkey PRIMARY KEY (name);

ALTER TABLE ONLY ragcore.sources
    ADD CONSTRAINT sources_collection_bucket_key_key UNIQUE (collection, bucket, key);

ALTER TABLE ONLY ragcore.sources
    ADD CONSTRAINT sources_pkey PRIMARY KEY (document_no);

ALTER TABLE ONLY ragcore.versions
    ADD CONSTRAINT versions_document_no_sequence_key UNIQUE (document_no, sequence);

ALTER TABLE ONLY ragcore.versions
    ADD CONSTRAINT versions_pkey PRIMARY KEY (version_id);

CREATE INDEX audit_at ON ragcore.audit USING btree (at DESC);

CREATE INDEX callbacks_due ON ragcore.callbacks USING btree (run_after) WHERE (settled_at IS NULL);

CREATE INDEX chunk_counts_collection ON ragcore.chunk_counts USING btree (collection);

CREATE INDEX documents_expiring ON ragcore.documents USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX documents_extracted ON ragcore.documents USING gin (extracted jsonb_path_ops);

CREATE INDEX documents_metadata ON ragcore.documents USING gin (metadata jsonb_path_ops);

CREATE INDEX documents_pending ON ragcore.documents USING btree (collection, document_id) WHERE (version_id IS NULL);

CREATE INDEX documents_uri ON ragcore.documents USING btree (collection, "left"(uri, 500)) WHERE (uri IS NOT NULL);

CREATE INDEX generation_documents_document ON ragcore.generation_documents USING btree (document_no);

CREATE UNIQUE INDEX generations_shadow ON ragcore.generations USING btree (collection) WHERE (state <> 'retired'::text);

CREATE INDEX idempotency_keys_age ON ragcore.idempotency_keys USING btree (created_at);

CREATE INDEX jobs_collection ON ragcore.jobs USING btree (collection, created_at DESC, job_id);

CREATE INDEX jobs_document ON ragcore.jobs USING btree (collection, document_id, created_at DESC);

CREATE INDEX jobs_document_no ON ragcore.jobs USING btree (document_no);

CREATE INDEX jobs_finished ON ragcore.jobs USING btree (finished_at) WHERE (finished_at IS NOT NULL);

CREATE INDEX jobs_newest ON ragcore.jobs USING btree (created_at DESC, job_id);

CREATE INDEX jobs_parent ON ragcore.jobs USING btree (parent_id) WHERE (parent_id IS NOT NULL);

CREATE INDEX jobs_parked ON ragcore.jobs USING btree (created_at) WHERE ((status = 'running'::text) AND (lease_until IS NULL));

CREATE INDEX jobs_running ON ragcore.jobs USING btree (lease_until) WHERE (status = 'running'::text);

CREATE INDEX jobs_status ON ragcore.jobs USING btree (status, created_at DESC, job_id);

CREATE INDEX jobs_version ON ragcore.jobs USING btree (version_id);

CREATE INDEX jobs_waiting ON ragcore.jobs USING btree (kind, priority DESC, created_at) WHERE (status = 'queued'::text);

ALTER TABLE ONLY ragcore.callbacks
    ADD CONSTRAINT callbacks_job_id_fkey FOREIGN KEY (job_id) REFERENCES ragcore.jobs(job_id) ON DELETE CASCADE;

ALTER TABLE ONLY ragcore.documents
    ADD CONSTRAINT documents_collection_fkey FOREIGN KEY (collection) REFERENCES ragcore.collections(name) ON DELETE CASCADE;

ALTER TABLE ONLY ragcore.generation_documents
    ADD CONSTRAINT generation_documents_collection_generation_fkey FOREIGN KEY (collection, generation) REFERENCES ragcore.generations(collection, generation) ON DELETE CASCADE;

ALTER TABLE ONLY ragcore.generation_documents
    ADD CONSTRAINT generation_documents_document_no_fkey FOREIGN KEY (document_no) REFERENCES ragcore.documents(document_no) ON DELETE CASCADE;

ALTER TABLE ONLY ragcore.generations
    ADD CONSTRAINT generations_collection_fkey FOREIGN KEY (collection) REFERENCES ragcore.collections(name) ON DELETE CASCADE;

ALTER TABLE ONLY ragcore.job_objects
    ADD CONSTRAINT job_objects_job_id_fkey FOREIGN KEY (job_id) REFERENCES ragcore.jobs(job_id) ON DELETE CASCADE;

ALTER TABLE ONLY ragcore.jobs
    ADD CONSTRAINT jobs_document_no_fkey FOREIGN KEY (document_no) REFERENCES ragcore.documents(document_no) ON DELETE SET NULL;

ALTER TABLE ONLY ragcore.jobs
    ADD CONSTRAINT jobs_version_id_fkey FOREIGN KEY (version_id) REFERENCES ragcore.versions(version_id) ON DELETE SET NULL;

ALTER TABLE ONLY ragcore.sources
    ADD CONSTRAINT sources_document_no_fkey FOREIGN KEY (document_no) REFERENCES ragcore.documents(document_no) ON DELETE CASCADE;

ALTER TABLE ONLY ragcore.versions
    ADD CONSTRAINT versions_document_no_fkey FOREIGN KEY (document_no) REFERENCES ragcore.documents(document_no) ON DELETE CASCADE;
