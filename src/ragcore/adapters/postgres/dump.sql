-- The content of a database, written down and put back. See dump.py.

-- name: columns
-- In the order of the table; none of those that a database makes by itself.
SELECT attname FROM pg_attribute
WHERE attrelid = %(table)s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
ORDER BY attnum;

-- name: migrations
SELECT name, checksum FROM ragcore.migrations;

-- name: versions_kept
-- Whose files are needed: they answer now, or will. An object of a bucket that no worker has fetched
-- has none yet.
SELECT v.version_id, d.collection, d.document_id
FROM ragcore.versions v JOIN ragcore.documents d USING (document_no)
WHERE v.state IN ('current', 'pending', 'failed') AND v.sha256 <> ''
ORDER BY v.version_id;

-- name: is_used
SELECT EXISTS (SELECT FROM ragcore.documents) OR EXISTS (SELECT FROM ragcore.jobs)
    OR EXISTS (SELECT FROM ragcore.api_keys) OR EXISTS (SELECT FROM ragcore.audit);

-- name: vector_index
SELECT indexrelid::regclass::text AS name, pg_get_indexdef(indexrelid) AS definition
FROM pg_index JOIN pg_class c ON c.oid = indexrelid JOIN pg_am ON pg_am.oid = c.relam
WHERE indrelid = %(table)s::regclass AND amname = 'hnsw';

-- name: identities
SELECT attname FROM pg_attribute
WHERE attrelid = %(table)s::regclass AND attidentity <> '' AND NOT attisdropped;

-- name: let_go
-- Whoever worked on these, it was in another place; that is no attempt of this one.
UPDATE ragcore.jobs
SET status = 'queued', stage = NULL, progress = 0, attempts = greatest(attempts - 1, 0),
    run_after = now(), lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE status = 'running';
