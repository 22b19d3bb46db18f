-- Collections: their fingerprints and what belongs to them.

-- name: collection
SELECT * FROM ragcore.collections WHERE name = %(name)s;

-- name: collections
SELECT c.*,
       (SELECT count(*) FROM ragcore.documents d WHERE d.collection = c.name) AS documents,
       (SELECT coalesce(sum(n.chunks), 0)::bigint FROM ragcore.chunk_counts n
        WHERE n.collection = c.name) AS chunks
FROM ragcore.collections c
ORDER BY c.name;

-- name: lock_name
SELECT pg_advisory_xact_lock(hashtextextended('ragcore.collections:' || %(name)s, 0));

-- name: insert_collection
INSERT INTO ragcore.collections (name, embedding, chunker, language, strict)
VALUES (%(name)s, %(embedding)s, %(chunker)s, %(language)s, %(strict)s)
RETURNING *;

-- name: lock_collection
SELECT name FROM ragcore.collections WHERE name = %(name)s FOR UPDATE;

-- name: documents_of
-- Locked in order of their ids, as every writer that locks several.
SELECT document_id FROM ragcore.documents WHERE collection = %(name)s
ORDER BY document_id COLLATE "C"
FOR UPDATE;

-- name: versions_of
SELECT v.version_id FROM ragcore.versions v JOIN ragcore.documents d USING (document_no)
WHERE d.collection = %(name)s;

-- name: count_chunks
SELECT count(*) AS chunks FROM vecs."{collection}";

-- name: cancel_jobs_of
UPDATE ragcore.jobs
SET status = 'cancelled', stage = NULL, finished_at = now(),
    lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE collection = %(name)s AND status IN ('queued', 'running');

-- name: delete_collection
DELETE FROM ragcore.collections WHERE name = %(name)s;

-- name: delete_counts
DELETE FROM ragcore.chunk_counts WHERE collection = %(name)s;
