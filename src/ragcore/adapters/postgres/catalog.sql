-- name: current_version
-- The document and its version in place, with what decides whether a submission is a repeat.
SELECT d.document_no, d.title, d.uri, d.metadata, d.last_sequence,
       v.version_id, v.sequence, v.sha256, v.fingerprint,
       v.chunks, v.pages, v.language
FROM ragcore.documents d
JOIN ragcore.versions v ON v.version_id = d.version_id
WHERE d.collection = %(collection)s AND d.document_id = %(document_id)s
FOR UPDATE OF d;

-- name: idempotent_job
INSERT INTO ragcore.idempotency_keys AS k (scope, key, body_hash, job_id)
VALUES (%(scope)s, %(key)s, %(body_hash)s, %(job_id)s)
ON CONFLICT (scope, key) DO UPDATE SET
    body_hash  = CASE WHEN k.created_at < now() - interval '24 hours'
                      THEN excluded.body_hash ELSE k.body_hash END,
    job_id     = CASE WHEN k.created_at < now() - interval '24 hours'
                      THEN excluded.job_id ELSE k.job_id END,
    created_at = CASE WHEN k.created_at < now() - interval '24 hours'
                      THEN excluded.created_at ELSE k.created_at END
RETURNING job_id, body_hash;

-- name: upsert_document
INSERT INTO ragcore.documents AS d (collection, document_id, uri, last_sequence)
VALUES (%(collection)s, %(document_id)s, %(uri)s, 1)
ON CONFLICT (collection, document_id) DO UPDATE SET last_sequence = d.last_sequence + 1
RETURNING document_no, last_sequence;

-- name: insert_version
INSERT INTO ragcore.versions (version_id, document_no, sequence, sha256, size_bytes, filename,
                              mime_type, fingerprint, title, uri, metadata)
VALUES (%(version_id)s, %(document_no)s, %(sequence)s, %(sha256)s, %(size_bytes)s, %(filename)s,
        %(mime_type)s, %(fingerprint)s, %(title)s, %(uri)s, %(metadata)s);

-- name: insert_job
INSERT INTO ragcore.jobs (job_id, collection, document_id, document_no, version_id, priority)
VALUES (%(job_id)s, %(collection)s, %(document_id)s, %(document_no)s, %(version_id)s, %(priority)s)
RETURNING *;

-- name: insert_settled_job
INSERT INTO ragcore.jobs (job_id, collection, document_id, document_no, version_id, priority,
                          status, outcome, progress, chunks, pages, language, started_at, finished_at)
VALUES (%(job_id)s, %(collection)s, %(document_id)s, %(document_no)s, %(version_id)s, %(priority)s,
        'succeeded', %(outcome)s, 1, %(chunks)s, %(pages)s, %(language)s, now(), now())
RETURNING *;

-- name: redescribe_document
UPDATE ragcore.documents
SET title = coalesce(%(title)s, title),
    uri = coalesce(%(uri)s, uri),
    metadata = coalesce(%(metadata)s, metadata),
    updated_at = now()
WHERE document_no = %(document_no)s;

-- name: claim
-- SKIP LOCKED: claimers never wait for one another.
WITH best AS (
    SELECT job_id
    FROM ragcore.jobs
    WHERE status = 'queued' AND run_after <= now()
      AND (%(job_id)s::uuid IS NULL OR job_id = %(job_id)s)
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
RETURNING j.*, v.sequence, v.filename, v.mime_type;

-- name: renew
UPDATE ragcore.jobs
SET lease_until = now() + %(duration)s, stage = coalesce(%(stage)s, stage), progress = %(progress)s
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running';

-- name: release_expired
UPDATE ragcore.jobs
SET status = 'queued', lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE job_id IN (
    SELECT job_id FROM ragcore.jobs
    WHERE status = 'running' AND lease_until < now()
    FOR UPDATE SKIP LOCKED
)
RETURNING *;

-- name: waiting
SELECT * FROM ragcore.jobs
WHERE status = 'queued' AND run_after <= now()
ORDER BY priority DESC, created_at
LIMIT %(limit)s;

-- name: lock_document
SELECT d.document_no, d.version_id, d.title, d.uri, d.metadata, v.sequence, v.sha256, v.fingerprint,
       v.chunks, v.pages, v.language
FROM ragcore.documents d
LEFT JOIN ragcore.versions v ON v.version_id = d.version_id
WHERE d.document_no = %(document_no)s
FOR UPDATE OF d;

-- name: finish
-- The fence: a worker that lost its lease updates no row and must not write anything else.
UPDATE ragcore.jobs
SET status = 'succeeded', outcome = %(outcome)s, stage = NULL, progress = 1,
    chunks = %(chunks)s, pages = %(pages)s, language = %(language)s,
    timings_ms = %(timings_ms)s, warnings = %(warnings)s, finished_at = now(),
    lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running';

-- name: version_of_lease
SELECT sha256, fingerprint, title, uri, metadata
FROM ragcore.versions WHERE version_id = %(version_id)s;

-- name: retire_version
UPDATE ragcore.versions SET state = %(state)s WHERE version_id = %(version_id)s;

-- name: promote_version
UPDATE ragcore.versions
SET state = 'current', fingerprint = coalesce(%(fingerprint)s, fingerprint), chunks = %(chunks)s, pages = %(pages)s, language = %(language)s,
    report = %(report)s, mime_type = %(mime_type)s
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
    updated_at = now()
WHERE document_no = %(document_no)s;

-- name: supersede_older
-- Older jobs of the document that nobody holds could only end so.
WITH older AS (
    UPDATE ragcore.jobs j
    SET status = 'succeeded', outcome = 'superseded', stage = NULL, finished_at = now(),
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

-- name: job
SELECT * FROM ragcore.jobs WHERE job_id = %(job_id)s;

-- name: jobs
SELECT * FROM ragcore.jobs
WHERE (%(collection)s::text IS NULL OR collection = %(collection)s)
  AND (%(document_id)s::text IS NULL OR document_id = %(document_id)s)
  AND (%(status)s::text IS NULL OR status = %(status)s)
ORDER BY created_at DESC
LIMIT %(limit)s;

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

-- name: reading_report
SELECT v.report
FROM ragcore.documents d
JOIN ragcore.versions v ON v.version_id = d.version_id
WHERE d.collection = %(collection)s AND d.document_id = %(document_id)s;

-- name: update_document
UPDATE ragcore.documents
SET title = coalesce(%(title)s, title), metadata = coalesce(%(metadata)s, metadata), updated_at = now()
WHERE collection = %(collection)s AND document_id = %(document_id)s
RETURNING document_no;

-- name: lock_documents
-- In order of their numbers, so that two deletions of the same documents can't deadlock.
SELECT document_no, document_id
FROM ragcore.documents
WHERE collection = %(collection)s AND document_id = ANY(%(document_ids)s)
ORDER BY document_no
FOR UPDATE;

-- name: versions_of
SELECT v.version_id
FROM ragcore.versions v
JOIN ragcore.documents d USING (document_no)
WHERE d.collection = %(collection)s AND d.document_id = ANY(%(document_ids)s);

-- name: cancel_jobs_of
UPDATE ragcore.jobs
SET status = 'cancelled', stage = NULL, finished_at = now(),
    lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE document_no = ANY(%(document_nos)s) AND status IN ('queued', 'running');

-- name: delete_versions
DELETE FROM ragcore.versions WHERE document_no = ANY(%(document_nos)s);

-- name: delete_documents
DELETE FROM ragcore.documents WHERE document_no = ANY(%(document_nos)s);

-- name: live_versions
-- Files of a failed version stay as long as a retry by hand could put it in place.
SELECT v.version_id
FROM ragcore.versions v
JOIN ragcore.documents d USING (document_no)
LEFT JOIN ragcore.versions c ON c.version_id = d.version_id
WHERE v.version_id = ANY(%(version_ids)s)
  AND (v.state IN ('pending', 'current')
       OR (v.state = 'failed' AND v.sequence > coalesce(c.sequence, 0)));
