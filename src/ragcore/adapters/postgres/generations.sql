-- The generations of a collection, inside the transactions of those who write or exchange them.
-- {table} and {other} are names of tables, checked by generations.py.

-- name: hold
SELECT pg_advisory_xact_lock_shared(hashtextextended('ragcore.generations:' || %(collection)s, 0));

-- name: take
SELECT pg_advisory_xact_lock(hashtextextended('ragcore.generations:' || %(collection)s, 0));

-- name: tables
-- Apart from the lock: whoever waits for a lock in the same statement sees what was before.
SELECT generation, name AS table_name, 'live' AS state, embedding, chunker, NULL::uuid AS job_id,
       NULL::timestamptz AS retired_at
FROM ragcore.collections WHERE name = %(collection)s
UNION ALL
SELECT generation, table_name, state, embedding, chunker, job_id, retired_at
FROM ragcore.generations WHERE collection = %(collection)s
ORDER BY retired_at, generation;

-- name: held_document
INSERT INTO ragcore.generation_documents (collection, generation, document_no, version_id, chunks)
VALUES (%(collection)s, %(generation)s, %(document_no)s, %(version_id)s, %(chunks)s)
ON CONFLICT (collection, generation, document_no)
DO UPDATE SET version_id = excluded.version_id, chunks = excluded.chunks, failure = NULL;

-- name: lacking_document
DELETE FROM ragcore.generation_documents
WHERE collection = %(collection)s AND generation = %(generation)s AND document_no = %(document_no)s;

-- name: forget
DELETE FROM ragcore.generations WHERE collection = %(collection)s AND generation = %(generation)s;

-- name: forget_counts
DELETE FROM ragcore.chunk_counts WHERE collection = %(table)s;

-- name: drop_tables
DROP TABLE IF EXISTS vecs."{table}", ragcore."postings_{table}";
