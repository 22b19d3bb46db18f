-- name: hold_collections
-- Before any document: who deletes a collection locks it first, too.
SELECT name FROM ragcore.collections WHERE name = ANY(%(names)s)
ORDER BY name COLLATE "C"
FOR KEY SHARE;

-- name: lock_submitted
SELECT FROM ragcore.documents
WHERE collection = %(collection)s AND document_id = %(document_id)s
FOR UPDATE;

-- name: current_version
-- A locked document and its version in place, with what decides whether a submission is a repeat.
SELECT d.document_no, d.title, d.uri, d.metadata, d.expires_at, d.last_sequence, now() AS sent_at,
       v.version_id, v.sequence, v.sha256, v.fingerprint, v.chunks, v.pages, v.language
FROM ragcore.documents d
JOIN ragcore.versions v ON v.version_id = d.version_id
WHERE d.collection = %(collection)s AND d.document_id = %(document_id)s;

-- name: idempotent_jobs
INSERT INTO ragcore.idempotency_keys AS k (scope, key, body_hash, job_ids)
VALUES (%(scope)s, %(key)s, %(body_hash)s, %(job_ids)s)
ON CONFLICT (scope, key) DO UPDATE SET
    body_hash  = CASE WHEN k.created_at < now() - interval '24 hours'
                      THEN excluded.body_hash ELSE k.body_hash END,
    job_ids    = CASE WHEN k.created_at < now() - interval '24 hours'
                      THEN excluded.job_ids ELSE k.job_ids END,
    created_at = CASE WHEN k.created_at < now() - interval '24 hours'
                      THEN excluded.created_at ELSE k.created_at END
RETURNING job_ids, body_hash;

-- name: use_key_anew
UPDATE ragcore.idempotency_keys
SET body_hash = %(body_hash)s, job_ids = %(job_ids)s, created_at = now()
WHERE scope = %(scope)s AND key = %(key)s;

-- name: upsert_document
INSERT INTO ragcore.documents AS d (collection, document_id, uri, expires_at, last_sequence)
VALUES (%(collection)s, %(document_id)s, %(uri)s, %(expires_at)s, 1)
ON CONFLICT (collection, document_id) DO UPDATE SET last_sequence = d.last_sequence + 1
RETURNING document_no, last_sequence;

-- name: insert_version
INSERT INTO ragcore.versions (version_id, document_no, sequence, sha256, size_bytes, filename,
                              mime_type, fingerprint, title, uri, metadata, expires_at, source,
                              marks)
VALUES (%(version_id)s, %(document_no)s, %(sequence)s, %(sha256)s, %(size_bytes)s, %(filename)s,
        %(mime_type)s, %(fingerprint)s, %(title)s, %(uri)s, %(metadata)s, %(expires_at)s, %(source)s,
        %(marks)s);

-- name: insert_source
INSERT INTO ragcore.sources (document_no, collection, bucket, key)
VALUES (%(document_no)s, %(collection)s, %(bucket)s, %(key)s)
ON CONFLICT DO NOTHING;

-- name: insert_job
-- A microsecond apart: jobs of one request keep their order. What somebody submits is in the audit
-- trail as surely as it is in the catalogue.
WITH recorded AS (
    INSERT INTO ragcore.audit (action, actor, collection, target, request_id, details)
    SELECT 'document.ingest', %(submitted_by)s, %(collection)s, %(document_id)s, %(request_id)s,
           jsonb_build_object('job_id', %(job_id)s::uuid)
    WHERE %(submitted_by)s::text IS NOT NULL
)
INSERT INTO ragcore.jobs (job_id, collection, document_id, document_no, version_id, priority,
                          submitted_by, request_id, parent_id, created_at)
VALUES (%(job_id)s, %(collection)s, %(document_id)s, %(document_no)s, %(version_id)s, %(priority)s,
        %(submitted_by)s, %(request_id)s, %(parent_id)s,
        now() + %(place)s * interval '1 microsecond')
RETURNING *;

-- name: insert_settled_job
WITH recorded AS (
    INSERT INTO ragcore.audit (action, actor, collection, target, request_id, details)
    SELECT 'document.update', %(submitted_by)s, %(collection)s, %(document_id)s, %(request_id)s,
           jsonb_build_object('job_id', %(job_id)s::uuid)
    WHERE %(submitted_by)s::text IS NOT NULL AND %(outcome)s::text <> 'unchanged'
)
INSERT INTO ragcore.jobs (job_id, collection, document_id, document_no, version_id, priority,
                          submitted_by, request_id, created_at,
                          status, outcome, progress, chunks, pages, language, started_at, finished_at)
VALUES (%(job_id)s, %(collection)s, %(document_id)s, %(document_no)s, %(version_id)s, %(priority)s,
        %(submitted_by)s, %(request_id)s, now() + %(place)s * interval '1 microsecond',
        'succeeded', %(outcome)s, 1, %(chunks)s, %(pages)s, %(language)s, now(), now())
RETURNING *;

-- name: insert_callback
INSERT INTO ragcore.callbacks (job_id, url) VALUES (%(job_id)s, %(url)s);

-- name: redescribe_document
UPDATE ragcore.documents
SET title = coalesce(%(title)s, title),
    uri = coalesce(%(uri)s, uri),
    metadata = coalesce(%(metadata)s, metadata),
    expires_at = %(expires_at)s,
    updated_at = now()
WHERE document_no = %(document_no)s;

-- name: claim
-- SKIP LOCKED: claimers never wait for one another.
WITH best AS (
    SELECT job_id
    FROM ragcore.jobs
    WHERE status = 'queued' AND kind = 'document' AND run_after <= now()
      AND (%(job_id)s::uuid IS NULL OR job_id = %(job_id)s)
      AND (%(parent_id)s::uuid IS NULL OR parent_id = %(parent_id)s)
      AND (%(at_most_bytes)s::bigint IS NULL OR %(at_most_bytes)s >= (
          SELECT size_bytes FROM ragcore.versions v WHERE v.version_id = jobs.version_id))
    ORDER BY priority DESC, created_at
    FOR UPDATE SKIP LOCKED
    LIMIT 1
)
UPDATE ragcore.jobs j
SET status = 'running', stage = NULL, progress = 0, attempts = attempts + 1, error = NULL,
    lease_owner = %(owner)s, lease_token = gen_random_uuid(), lease_until = now() + %(lease)s,
    started_at = coalesce(started_at, now())
FROM best, ragcore.versions v
WHERE j.job_id = best.job_id AND v.version_id = j.version_id
RETURNING j.*, v.sequence, v.filename, v.mime_type,
          CASE WHEN v.sha256 = '' THEN v.source END AS source;

-- name: renew
UPDATE ragcore.jobs
SET lease_until = now() + %(duration)s, stage = coalesce(%(stage)s, stage), progress = %(progress)s
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running';

-- name: release_expired
UPDATE ragcore.jobs
SET status = 'queued', crashes = crashes + 1,
    run_after = now() + CASE crashes WHEN 0 THEN interval '0'
                        ELSE %(pause)s * 2 ^ (crashes - 1) * (0.5 + random()) END,
    lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE job_id IN (
    SELECT job_id FROM ragcore.jobs
    WHERE status = 'running' AND lease_until < now()
    FOR UPDATE SKIP LOCKED
)
RETURNING *;

-- name: waiting
SELECT * FROM ragcore.jobs
WHERE status = 'queued' AND kind = 'document' AND run_after <= now()
ORDER BY priority DESC, created_at
LIMIT %(limit)s;

-- name: lock_document
SELECT FROM ragcore.documents WHERE document_no = %(document_no)s FOR UPDATE;

-- name: locked_document
-- Apart from the lock: whoever waits for a lock in the same statement sees the new document joined
-- with the old version.
SELECT d.document_no, d.version_id, d.title, d.uri, d.metadata, d.expires_at,
       v.sequence, v.sha256, v.fingerprint, v.chunks, v.pages, v.language
FROM ragcore.documents d
LEFT JOIN ragcore.versions v ON v.version_id = d.version_id
WHERE d.document_no = %(document_no)s;

-- name: hold
SELECT FROM ragcore.jobs
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running'
FOR UPDATE;

-- name: finish
-- The fence: a worker that lost its lease updates no row and must not write anything else.
UPDATE ragcore.jobs
SET status = 'succeeded', outcome = %(outcome)s, stage = NULL, progress = 1,
    chunks = %(chunks)s, pages = %(pages)s, language = %(language)s,
    timings_ms = %(timings_ms)s, warnings = %(warnings)s, finished_at = now(),
    lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running';

-- name: version_of_lease
SELECT sha256, fingerprint, title, uri, metadata, expires_at, source, marks, created_at AS sent_at
FROM ragcore.versions WHERE version_id = %(version_id)s;

-- name: retire_version
UPDATE ragcore.versions SET state = %(state)s WHERE version_id = %(version_id)s;

-- name: fail_version_of
UPDATE ragcore.versions v SET state = 'failed'
FROM ragcore.jobs j WHERE j.job_id = %(job_id)s AND v.version_id = j.version_id;

-- name: mark_version
UPDATE ragcore.versions SET source = coalesce(%(source)s, source), marks = coalesce(%(marks)s, marks)
WHERE version_id = %(version_id)s;

-- name: renumber_version
UPDATE ragcore.versions SET sequence = %(sequence)s WHERE version_id = %(version_id)s;

-- name: promote_version
UPDATE ragcore.versions
SET state = 'current', fingerprint = coalesce(%(fingerprint)s, fingerprint), chunks = %(chunks)s,
    pages = %(pages)s, language = %(language)s, report = %(report)s, mime_type = %(mime_type)s
WHERE version_id = %(version_id)s;

-- name: promote_document
UPDATE ragcore.documents
SET version_id = %(version_id)s,
    title = %(title)s,
    uri = coalesce(%(uri)s, uri),
    metadata = coalesce(%(metadata)s, metadata),
    mime_type = %(mime_type)s,
    language = %(language)s,
    extracted = %(extracted)s,
    expires_at = %(expires_at)s,
    updated_at = now()
WHERE document_no = %(document_no)s;

-- name: supersede_older
-- Older jobs of the document that nobody holds could only end so.
WITH older AS (
    UPDATE ragcore.jobs j
    SET status = 'succeeded', outcome = 'superseded', stage = NULL, error = NULL, finished_at = now(),
        lease_owner = NULL, lease_token = NULL, lease_until = NULL
    FROM ragcore.versions v
    WHERE v.version_id = j.version_id
      AND j.document_no = %(document_no)s AND v.sequence < %(sequence)s
      AND (j.status = 'queued' OR (j.status = 'running' AND j.lease_until < now()))
    RETURNING j.version_id
)
UPDATE ragcore.versions v SET state = 'superseded'
FROM older WHERE v.version_id = older.version_id
RETURNING v.version_id;

-- name: cancel
WITH cancelled AS (
    UPDATE ragcore.jobs
    SET status = 'cancelled', stage = NULL, finished_at = now(),
        lease_owner = NULL, lease_token = NULL, lease_until = NULL
    WHERE job_id = %(job_id)s AND status IN ('queued', 'running')
    RETURNING version_id
)
UPDATE ragcore.versions v SET state = 'failed'
FROM cancelled WHERE v.version_id = cancelled.version_id;

-- name: cancel_children
-- After their parent, which makes no more of them then.
WITH cancelled AS (
    UPDATE ragcore.jobs
    SET status = 'cancelled', stage = NULL, finished_at = now(),
        lease_owner = NULL, lease_token = NULL, lease_until = NULL
    WHERE parent_id = %(job_id)s AND status IN ('queued', 'running')
    RETURNING version_id
)
UPDATE ragcore.versions v SET state = 'failed'
FROM cancelled WHERE v.version_id = cancelled.version_id;

-- name: fail
UPDATE ragcore.jobs
SET status = 'failed', error = %(error)s, stage = NULL, finished_at = now(),
    lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running';

-- name: retry
UPDATE ragcore.jobs
SET status = 'queued', error = %(error)s, stage = NULL, progress = 0, run_after = now() + %(after)s,
    lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running';

-- name: give_back
UPDATE ragcore.jobs
SET status = 'queued', attempts = attempts - 1, stage = NULL, progress = 0, run_after = now(),
    lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running';

-- name: survived
UPDATE ragcore.jobs SET crashes = crashes - 1
WHERE job_id = %(job_id)s AND crashes > 0 AND status IN ('queued', 'running');

-- name: lock_documents_of_jobs
SELECT document_no
FROM ragcore.documents
WHERE document_no IN (SELECT document_no FROM ragcore.jobs WHERE job_id = ANY(%(job_ids)s))
ORDER BY collection COLLATE "C", document_id COLLATE "C"
FOR UPDATE;

-- name: run_again_superseded
-- Something newer is in place: the files may be gone, and the job could only end so.
WITH done AS (
    UPDATE ragcore.jobs j
    SET status = 'succeeded', outcome = 'superseded', error = NULL, finished_at = now()
    FROM ragcore.versions v, ragcore.documents d, ragcore.versions c
    WHERE j.job_id = ANY(%(job_ids)s) AND j.status = ANY(%(statuses)s)
      AND v.version_id = j.version_id AND d.document_no = j.document_no
      AND c.version_id = d.version_id AND c.sequence > v.sequence
    RETURNING j.*
), dropped AS (
    UPDATE ragcore.versions v SET state = 'superseded' FROM done WHERE v.version_id = done.version_id
)
SELECT * FROM done;

-- name: run_again
WITH again AS (
    UPDATE ragcore.jobs
    SET status = 'queued', stage = NULL, progress = 0, error = NULL, attempts = 0, crashes = 0,
        run_after = now(), started_at = NULL, finished_at = NULL
    WHERE job_id = ANY(%(job_ids)s) AND status = ANY(%(statuses)s)
      AND (version_id IS NOT NULL AND document_no IS NOT NULL OR kind <> 'document')
    RETURNING *
), revived AS (
    UPDATE ragcore.versions v SET state = 'pending' FROM again WHERE v.version_id = again.version_id
)
SELECT * FROM again;

-- name: owe_callbacks_again
UPDATE ragcore.callbacks
SET settled_at = NULL, attempts = 0, run_after = now(), error = NULL
WHERE job_id = ANY(%(job_ids)s);

-- name: failed_jobs
SELECT job_id FROM ragcore.jobs
WHERE status = 'failed' AND version_id IS NOT NULL AND document_no IS NOT NULL
  AND (%(collections)s::text[] IS NULL OR collection = ANY(%(collections)s))
  AND (%(document_id)s::text IS NULL OR document_id = %(document_id)s)
  AND (%(code)s::text IS NULL OR error ->> 'code' = %(code)s)
ORDER BY created_at, job_id
LIMIT %(limit)s;

-- name: job
SELECT * FROM ragcore.jobs WHERE job_id = %(job_id)s;

-- name: jobs_by_id
SELECT * FROM ragcore.jobs WHERE job_id = ANY(%(job_ids)s);

-- name: jobs
-- {condition} holds only what is asked for, so that the index that serves it best is used.
SELECT * FROM ragcore.jobs
WHERE {condition}
ORDER BY created_at DESC, job_id
LIMIT %(limit)s;

-- name: queue_state
SELECT status, count(*) AS jobs,
       (SELECT coalesce(extract(epoch FROM now() - min(run_after)), 0)::float8
        FROM ragcore.jobs WHERE status = 'queued' AND run_after <= now()) AS oldest
FROM ragcore.jobs
GROUP BY status;

-- name: document
SELECT d.*, coalesce(v.chunks, 0) AS chunks, v.pages
FROM ragcore.documents d
LEFT JOIN ragcore.versions v ON v.version_id = d.version_id
WHERE d.collection = %(collection)s AND d.document_id = %(document_id)s;

-- name: documents
-- Only documents that answer: one whose first version is on its way, or failed, is seen in its jobs.
SELECT d.*, coalesce(v.chunks, 0) AS chunks, v.pages
FROM ragcore.documents d
JOIN ragcore.versions v ON v.version_id = d.version_id
WHERE d.collection = %(collection)s
  AND (%(after)s::text IS NULL OR d.document_id > %(after)s)
  AND (NOT %(doubtful)s  -- as ReadingReport.is_doubtful
       OR jsonb_array_length(v.report -> 'pages_without_text') > 0
       OR jsonb_array_length(v.report -> 'warnings') > 0
       OR (v.report ->> 'replaced_characters')::integer > 0
       OR (v.report ->> 'ocr_confidence')::real < 0.8)
  AND {filter}
ORDER BY d.document_id
LIMIT %(limit)s;

-- name: document_by_uri
-- One that answers before one that does not, then the newest. The index holds beginnings: a URI may
-- be longer than an index can take.
SELECT d.*, coalesce(v.chunks, 0) AS chunks, v.pages
FROM ragcore.documents d
LEFT JOIN ragcore.versions v ON v.version_id = d.version_id
WHERE d.collection = %(collection)s AND d.uri = %(uri)s
  AND left(d.uri, 500) = left(%(uri)s, 500)
ORDER BY d.version_id IS NULL, d.document_no DESC
LIMIT 1;

-- name: page
SELECT v.version_id, v.sha256, v.size_bytes, v.filename, v.title, v.marks
FROM ragcore.documents d
JOIN ragcore.versions v ON v.version_id = d.version_id
WHERE d.collection = %(collection)s AND d.document_id = %(document_id)s
  AND v.marks IS NOT NULL AND v.sequence = d.last_sequence;

-- name: versions
SELECT v.version_id, v.sequence, v.state, v.sha256, v.size_bytes, v.filename, v.mime_type,
       v.fingerprint, v.chunks, v.pages, v.language, v.created_at
FROM ragcore.documents d
LEFT JOIN ragcore.versions v USING (document_no)
WHERE d.collection = %(collection)s AND d.document_id = %(document_id)s
ORDER BY v.sequence DESC;

-- name: matching
SELECT document_id FROM (
    (SELECT d.document_id
     FROM ragcore.documents d
     WHERE d.collection = %(collection)s AND d.version_id IS NOT NULL
       AND (%(after)s::text IS NULL OR d.document_id > %(after)s)
       AND {filter}
     ORDER BY d.document_id
     LIMIT %(limit)s)
    UNION ALL
    (SELECT d.document_id
     FROM (
         SELECT n.document_id, v.title, v.mime_type, n.language, n.created_at, n.extracted,
                coalesce(v.metadata, n.metadata) AS metadata
         FROM ragcore.documents n
         LEFT JOIN LATERAL (
             SELECT * FROM ragcore.versions v
             WHERE v.document_no = n.document_no
             ORDER BY v.sequence DESC
             LIMIT 1
         ) v ON true
         WHERE n.collection = %(collection)s AND n.version_id IS NULL
           AND (%(after)s::text IS NULL OR n.document_id > %(after)s)
     ) d
     WHERE {filter}
     ORDER BY d.document_id
     LIMIT %(limit)s)
) found
ORDER BY document_id
LIMIT %(limit)s;

-- name: expired
SELECT d.collection, d.document_id
FROM ragcore.documents d
WHERE {expired}
ORDER BY d.expires_at
LIMIT %(limit)s;

-- name: is_expired
-- Sent anew since, or with a later date: what is on its way decides.
d.expires_at <= now() AND NOT EXISTS (
    SELECT FROM ragcore.versions p
    WHERE p.document_no = d.document_no AND p.state = 'pending'
      AND CASE WHEN p.expires_at IS NULL THEN p.created_at >= d.expires_at ELSE p.expires_at > now() END
);

-- name: reading_report
SELECT v.report
FROM ragcore.documents d
JOIN ragcore.versions v ON v.version_id = d.version_id
WHERE d.collection = %(collection)s AND d.document_id = %(document_id)s;

-- name: update_document
UPDATE ragcore.documents
SET title = coalesce(%(title)s, title),
    metadata = coalesce(%(metadata)s, metadata),
    expires_at = CASE WHEN %(never_expires)s THEN NULL ELSE coalesce(%(expires_at)s, expires_at) END,
    updated_at = now()
WHERE collection = %(collection)s AND document_id = %(document_id)s
RETURNING document_no;

-- name: lock_documents
-- In order of their ids, as every writer that locks several.
SELECT document_no, document_id, last_sequence
FROM ragcore.documents
WHERE collection = %(collection)s AND document_id = ANY(%(document_ids)s)
ORDER BY document_id COLLATE "C"
FOR UPDATE;

-- name: still_expired
-- Of locked documents.
SELECT d.document_no
FROM ragcore.documents d
WHERE d.document_no = ANY(%(document_nos)s) AND {expired};

-- name: to_forget
SELECT d.document_id,
       (SELECT count(*) FROM ragcore.versions v WHERE v.document_no = d.document_no) AS versions,
       coalesce((SELECT v.chunks FROM ragcore.versions v WHERE v.version_id = d.version_id), 0) AS chunks
FROM ragcore.documents d
WHERE d.collection = %(collection)s AND d.document_id = ANY(%(document_ids)s)
ORDER BY d.document_id;

-- name: cancel_jobs_of
UPDATE ragcore.jobs
SET status = 'cancelled', stage = NULL, finished_at = now(),
    lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE document_no = ANY(%(document_nos)s) AND status IN ('queued', 'running');

-- name: delete_versions
DELETE FROM ragcore.versions WHERE document_no = ANY(%(document_nos)s) RETURNING version_id;

-- name: delete_documents
DELETE FROM ragcore.documents WHERE document_no = ANY(%(document_nos)s);

-- name: record_deletions
INSERT INTO ragcore.audit (action, actor, collection, target)
SELECT 'document.delete', %(actor)s, %(collection)s, unnest(%(document_ids)s::text[]);

-- name: live_versions
-- Files of a failed version stay as long as a retry by hand could put it in place.
SELECT v.version_id
FROM ragcore.versions v
JOIN ragcore.documents d USING (document_no)
LEFT JOIN ragcore.versions c ON c.version_id = d.version_id
WHERE v.version_id = ANY(%(version_ids)s)
  AND (v.state IN ('pending', 'current')
       OR (v.state = 'failed' AND v.sequence > coalesce(c.sequence, 0)));
