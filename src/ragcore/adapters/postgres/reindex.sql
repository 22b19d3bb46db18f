-- Moving a collection to another embedding model or chunker. {live} and {table} are names of tables,
-- checked by generations.py; {parked} is a new one.

-- name: wait_little
-- For who must not wait for a long writer, and can come again.
SET LOCAL lock_timeout = '10s';

-- name: number_in_turn
-- Above every number in use: the sequence is not in a backup. Alone, so that none is drawn twice.
SELECT pg_advisory_xact_lock(hashtextextended('ragcore.generation_numbers', 0));

-- name: draw_number
SELECT setval('ragcore.generation_numbers', greatest(
    nextval('ragcore.generation_numbers'),
    (SELECT max(generation) + 1 FROM ragcore.collections)))::integer AS number;

-- name: insert_generation
INSERT INTO ragcore.generations (collection, generation, state, table_name, embedding, chunker, job_id)
VALUES (%(collection)s, %(generation)s, 'filling', %(table)s, %(embedding)s, %(chunker)s, %(job_id)s);

-- name: insert_job
-- What somebody starts is in the audit trail as surely as it is queued.
WITH recorded AS (
    INSERT INTO ragcore.audit (action, actor, collection, target, request_id, details)
    VALUES ('collection.reindex', %(submitted_by)s, %(collection)s, %(job_id)s::uuid::text,
            %(request_id)s, jsonb_build_object('embedding_model', %(model)s::text,
                                               'chunker', %(chunker)s::text))
)
INSERT INTO ragcore.jobs (job_id, kind, collection, document_id, arguments, submitted_by, request_id)
VALUES (%(job_id)s, 'reindex', %(collection)s, %(collection)s, %(arguments)s, %(submitted_by)s,
        %(request_id)s)
RETURNING *;

-- name: record
INSERT INTO ragcore.audit (action, actor, collection, target, request_id, details)
VALUES (%(action)s, %(submitted_by)s, %(collection)s, %(target)s, %(request_id)s, %(details)s);

-- name: job
SELECT * FROM ragcore.jobs WHERE job_id = %(job_id)s;

-- name: claim
WITH best AS (
    SELECT job_id
    FROM ragcore.jobs
    WHERE status = 'queued' AND kind = 'reindex' AND run_after <= now()
      AND (%(job_id)s::uuid IS NULL OR job_id = %(job_id)s)
    ORDER BY priority DESC, created_at
    FOR UPDATE SKIP LOCKED
    LIMIT 1
)
UPDATE ragcore.jobs j
SET status = 'running', stage = NULL, progress = 0, attempts = attempts + 1, error = NULL,
    lease_owner = %(owner)s, lease_token = gen_random_uuid(), lease_until = now() + %(lease)s,
    started_at = coalesce(started_at, now())
FROM best
WHERE j.job_id = best.job_id
RETURNING j.*;

-- name: still_ours
-- The last statement before a commit: whoever cancels or takes over has the row for a moment only.
SELECT FROM ragcore.jobs
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running'
FOR SHARE;

-- name: hold_job
SELECT FROM ragcore.jobs
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running'
FOR UPDATE;

-- name: note
-- Tries and crashes count where it gets no further: a long job may meet more than a short one may.
UPDATE ragcore.jobs
SET result = jsonb_build_object('counts', %(counts)s::jsonb, 'reindex', %(result)s::jsonb),
    attempts = CASE WHEN %(went_on)s THEN 1 ELSE attempts END,
    crashes = CASE WHEN %(went_on)s THEN 0 ELSE crashes END
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running';

-- name: finish
UPDATE ragcore.jobs
SET status = 'succeeded', stage = NULL, progress = 1, finished_at = now(),
    result = coalesce(result, '{}') || jsonb_build_object('reindex',
        coalesce(result -> 'reindex', '{}') || jsonb_build_object('state', %(state)s::text)),
    lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running';

-- name: queue_again
UPDATE ragcore.jobs
SET status = 'queued', stage = NULL, progress = 0, error = NULL, attempts = 0, crashes = 0,
    run_after = now(), started_at = NULL, finished_at = NULL,
    arguments = arguments || %(arguments)s::jsonb
WHERE job_id = %(job_id)s AND status = 'succeeded'
RETURNING *;

-- name: insert_switch
-- The job of the reindex was kept long enough and is gone: another one takes its place.
INSERT INTO ragcore.jobs (job_id, kind, collection, document_id, arguments, submitted_by, request_id)
VALUES (%(job_id)s, 'reindex', %(collection)s, %(collection)s, %(arguments)s, %(submitted_by)s,
        %(request_id)s)
RETURNING *;

-- name: cancel_job
UPDATE ragcore.jobs
SET status = 'cancelled', stage = NULL, finished_at = now(),
    lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE job_id = %(job_id)s AND status IN ('queued', 'running');

-- name: set_state
UPDATE ragcore.generations SET state = %(state)s
WHERE collection = %(collection)s AND generation = %(generation)s;

-- name: set_job
UPDATE ragcore.generations SET job_id = %(job_id)s
WHERE collection = %(collection)s AND generation = %(generation)s;

-- name: generations
SELECT g.*,
       (SELECT count(*) FROM ragcore.generation_documents h
        JOIN ragcore.documents d ON d.document_no = h.document_no AND d.version_id = h.version_id
        WHERE h.collection = g.collection AND h.generation = g.generation AND h.failure IS NULL)
           AS documents,
       (SELECT count(*) FROM ragcore.documents d
        WHERE d.collection = g.collection AND d.version_id IS NOT NULL) AS in_place
FROM ragcore.generations g
WHERE g.collection = %(collection)s
ORDER BY g.retired_at, g.generation;

-- name: uncounted_generations
SELECT *, 0 AS documents, 0 AS in_place FROM ragcore.generations
WHERE collection = %(collection)s
ORDER BY retired_at, generation;

-- name: pending
SELECT d.document_no, d.document_id, d.version_id, v.filename, v.mime_type
FROM ragcore.documents d
JOIN ragcore.versions v ON v.version_id = d.version_id
LEFT JOIN ragcore.generation_documents h
    ON h.collection = d.collection AND h.generation = %(generation)s
    AND h.document_no = d.document_no AND h.version_id = d.version_id
WHERE d.collection = %(collection)s AND h.document_no IS NULL
  AND (%(after)s::text IS NULL OR d.document_id > %(after)s)
ORDER BY d.document_id
LIMIT %(limit)s;

-- name: count_lack
SELECT count(*) FILTER (WHERE h.document_no IS NULL OR h.failure IS NOT NULL) AS documents,
       count(*) FILTER (WHERE h.failure IS NOT NULL) AS failed
FROM ragcore.documents d
LEFT JOIN ragcore.generation_documents h
    ON h.collection = d.collection AND h.generation = %(generation)s
    AND h.document_no = d.document_no AND h.version_id = d.version_id
WHERE d.collection = %(collection)s AND d.version_id IS NOT NULL;

-- name: lock_document
SELECT FROM ragcore.documents WHERE document_no = %(document_no)s FOR UPDATE;

-- name: version_in_place
SELECT version_id FROM ragcore.documents WHERE document_no = %(document_no)s;

-- name: skip
INSERT INTO ragcore.generation_documents
    (collection, generation, document_no, version_id, chunks, failure)
SELECT %(collection)s, %(generation)s, document_no, version_id, 0, %(failure)s
FROM ragcore.documents
WHERE document_no = %(document_no)s AND version_id = %(version_id)s
ON CONFLICT (collection, generation, document_no)
DO UPDATE SET version_id = excluded.version_id, chunks = 0, failure = excluded.failure;

-- name: skipped
SELECT d.document_id, h.failure
FROM ragcore.generation_documents h
JOIN ragcore.documents d ON d.document_no = h.document_no AND d.version_id = h.version_id
WHERE h.collection = %(collection)s AND h.generation = %(generation)s AND h.failure IS NOT NULL
ORDER BY d.document_id
LIMIT %(limit)s;

-- name: try_skipped_again
DELETE FROM ragcore.generation_documents
WHERE collection = %(collection)s AND generation = %(generation)s AND failure IS NOT NULL;

-- name: mark
-- All that a row with its own metadata consists of but its vector.
md5(jsonb_build_array({row}.metadata, {row}.document_no, {row}.document_id, {row}.language,
                      {row}.config, {row}.context)::text)

-- name: remove_gone_nodes
DELETE FROM vecs."{table}" s
WHERE s.own_metadata AND NOT EXISTS (
    SELECT FROM vecs."{live}" l WHERE l.id = s.id AND l.own_metadata);

-- name: pending_nodes
SELECT l.id, {mark} AS mark,
       concat_ws(E'\n', l.context, coalesce(l.metadata ->> 'text', ragcore.text_in_node(l.metadata)))
           AS text
FROM vecs."{live}" l
LEFT JOIN vecs."{table}" s ON s.id = l.id
WHERE l.own_metadata AND (s.id IS NULL OR NOT s.own_metadata OR {mark} <> {other_mark})
ORDER BY l.id
LIMIT %(limit)s;

-- name: count_nodes
SELECT (SELECT count(*) FROM vecs."{live}" l LEFT JOIN vecs."{table}" s ON s.id = l.id
        WHERE l.own_metadata AND (s.id IS NULL OR NOT s.own_metadata OR {mark} <> {other_mark}))
     + (SELECT count(*) FROM vecs."{table}" s
        WHERE s.own_metadata AND NOT EXISTS (
            SELECT FROM vecs."{live}" l WHERE l.id = s.id AND l.own_metadata)) AS nodes;

-- name: state_of_nodes
SELECT concat(count(*), ' ', sum(xmin::text::bigint)) AS state FROM vecs."{live}" WHERE own_metadata;

-- name: lock_nodes
-- Those that are as they were read stay so until the copy is committed.
SELECT l.id FROM vecs."{live}" l
JOIN unnest(%(ids)s::text[], %(marks)s::text[]) AS read (id, mark) ON read.id = l.id
WHERE l.own_metadata AND {mark} = read.mark
ORDER BY l.id
FOR SHARE OF l;

-- name: delete_nodes
DELETE FROM vecs."{table}" WHERE id = ANY(%(ids)s);

-- name: copy_nodes
INSERT INTO vecs."{table}" (id, vec, metadata, document_no, document_id, language, config, context)
SELECT l.id, coalesce(%(vector)s, l.vec), l.metadata, l.document_no, l.document_id, l.language, l.config, l.context
FROM vecs."{live}" l
WHERE l.id = %(id)s;

-- name: take_over_versions
-- The rows of ragcore.versions say what their documents are made of now.
UPDATE ragcore.versions v
SET chunks = h.chunks,
    fingerprint = CASE v.fingerprint WHEN %(before)s THEN %(after)s ELSE v.fingerprint END
FROM ragcore.generation_documents h
JOIN ragcore.documents d ON d.document_no = h.document_no AND d.version_id = h.version_id
WHERE h.collection = %(collection)s AND h.generation = %(generation)s AND h.failure IS NULL
  AND v.version_id = d.version_id;

-- name: leave_behind_versions
-- Documents that are not taken over answer no more: the next ingest of the same bytes makes them anew.
UPDATE ragcore.versions v
SET chunks = 0, fingerprint = 'altered'
FROM ragcore.documents d
LEFT JOIN ragcore.generation_documents h
    ON h.collection = d.collection AND h.generation = %(generation)s
    AND h.document_no = d.document_no AND h.version_id = d.version_id AND h.failure IS NULL
WHERE d.collection = %(collection)s AND v.version_id = d.version_id AND h.document_no IS NULL;

-- name: retire
INSERT INTO ragcore.generations (collection, generation, state, table_name, embedding, chunker, retired_at)
SELECT name, generation, 'retired', %(parked)s, embedding, chunker, now()
FROM ragcore.collections WHERE name = %(collection)s;

-- name: keep_documents
-- What answered until now holds every document as it is in place, but those that answered no more.
INSERT INTO ragcore.generation_documents (collection, generation, document_no, version_id, chunks)
SELECT d.collection, %(generation)s, d.document_no, d.version_id, v.chunks
FROM ragcore.documents d JOIN ragcore.versions v ON v.version_id = d.version_id
WHERE d.collection = %(collection)s AND v.chunks > 0;

-- name: forget_documents
-- Of the one that answers nothing is recorded.
DELETE FROM ragcore.generation_documents
WHERE collection = %(collection)s AND generation = %(generation)s;

-- name: wait_for_vacuum
-- Before the lock below: a vacuum of these tables gives way to one who waits for a second, which
-- that one never does.
SET LOCAL lock_timeout = '30s';
LOCK TABLE vecs."{live}", ragcore."postings_{live}", vecs."{table}", ragcore."postings_{table}"
    IN SHARE UPDATE EXCLUSIVE MODE;

-- name: lock_tables
-- Shorter than `deadlock_timeout`: a search that has one of these tables and waits for another one
-- is let through, never sacrificed.
SET LOCAL lock_timeout = '150ms';
LOCK TABLE vecs."{live}", ragcore."postings_{live}", vecs."{table}", ragcore."postings_{table}"
    IN ACCESS EXCLUSIVE MODE;

-- name: exchange
-- Names of indexes and sequences stay: each holds the number of its generation, or its collection's
-- name for the first.
ALTER TABLE vecs."{live}" RENAME TO "{parked}";
ALTER TABLE ragcore."postings_{live}" RENAME TO "postings_{parked}";
ALTER TABLE vecs."{table}" RENAME TO "{live}";
ALTER TABLE ragcore."postings_{table}" RENAME TO "postings_{live}";
UPDATE ragcore.chunk_counts
SET collection = CASE collection WHEN '{live}' THEN '{parked}' ELSE '{live}' END
WHERE collection IN ('{live}', '{table}');
UPDATE ragcore.collections c
SET generation = {number}, embedding = g.embedding, chunker = g.chunker
FROM ragcore.generations g
WHERE c.name = '{live}' AND g.collection = c.name AND g.table_name = '{table}';
DELETE FROM ragcore.generations WHERE collection = '{live}' AND table_name = '{table}';

-- name: collection
SELECT * FROM ragcore.collections WHERE name = %(collection)s;

-- name: sample
SELECT id FROM vecs."{live}" WHERE NOT own_metadata ORDER BY md5(id) LIMIT %(limit)s;

-- name: outdated
-- Kept long enough; older than the one before; or left by a job that is no more.
SELECT g.collection, g.generation
FROM ragcore.generations g
LEFT JOIN ragcore.jobs j ON j.job_id = g.job_id
WHERE (g.state = 'retired'
       AND (g.retired_at <= now() - %(kept)s::interval
            OR EXISTS (SELECT FROM ragcore.generations n
                       WHERE n.collection = g.collection AND n.state = 'retired'
                         AND (n.retired_at, n.generation) > (g.retired_at, g.generation))))
   OR (g.state = 'filling' AND (j.job_id IS NULL OR j.status IN ('cancelled', 'succeeded')
                                -- One that failed may be run again, and goes on where it stopped.
                                OR j.status = 'failed' AND j.finished_at <= now() - interval '1 day'))
LIMIT 100;
