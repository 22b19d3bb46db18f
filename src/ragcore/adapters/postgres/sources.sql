-- Buckets: what is known of their objects, and the jobs that list them.

-- name: insert_job
-- What somebody starts is in the audit trail as surely as it is queued.
WITH recorded AS (
    INSERT INTO ragcore.audit (action, actor, collection, target, request_id, details)
    VALUES ('bucket.ingest', %(submitted_by)s, %(collection)s, %(document_id)s, %(request_id)s,
            jsonb_build_object('job_id', %(job_id)s::uuid, 'order', %(arguments)s::jsonb))
)
INSERT INTO ragcore.jobs (job_id, kind, collection, document_id, arguments, submitted_by, request_id)
VALUES (%(job_id)s, 'bucket', %(collection)s, %(document_id)s, %(arguments)s, %(submitted_by)s,
        %(request_id)s)
RETURNING *;

-- name: waiting
-- One that has begun to list may have passed by what the caller has just put there.
SELECT * FROM ragcore.jobs
WHERE kind = 'bucket' AND collection = %(collection)s AND document_id = %(document_id)s
  AND arguments = %(arguments)s AND status = 'queued'
ORDER BY created_at
LIMIT 1;

-- name: claim
WITH best AS (
    SELECT job_id
    FROM ragcore.jobs
    WHERE status = 'queued' AND kind = 'bucket' AND run_after <= now()
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

-- name: known
-- Which is said apart. The newest version and the job that made it are looked up one by one, by index.
SELECT s.key, d.document_id, d.last_sequence, c.source AS in_place,
       n.source AS newest, n.state AS newest_state, j.error, j.parent_id
FROM ragcore.sources s
JOIN ragcore.documents d USING (document_no)
LEFT JOIN ragcore.versions c ON c.version_id = d.version_id
LEFT JOIN LATERAL (
    SELECT version_id, source, state FROM ragcore.versions v
    WHERE v.document_no = s.document_no
    ORDER BY v.sequence DESC
    LIMIT 1
) n ON true
LEFT JOIN LATERAL (
    SELECT error, parent_id FROM ragcore.jobs q
    WHERE q.version_id = n.version_id
    ORDER BY q.created_at DESC
    LIMIT 1
) j ON true
WHERE s.collection = %(collection)s AND s.bucket = %(bucket)s AND {keys}
ORDER BY s.key
LIMIT %(limit)s;

-- name: keys_under_prefix
s.key >= %(prefix)s AND s.key <= %(last)s AND starts_with(s.key, %(prefix)s)
AND (%(after)s::text IS NULL OR s.key > %(after)s)

-- name: these_keys
s.key = ANY(%(keys)s)

-- name: hold
SELECT FROM ragcore.jobs
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running'
FOR UPDATE;

-- name: take_turns
SELECT pg_advisory_xact_lock(hashtextextended(%(place)s, 0));

-- name: insert_object
-- A later listing of the same job may find the object changed once more.
INSERT INTO ragcore.job_objects (job_id, key, action, child_id)
VALUES (%(job_id)s, %(key)s, %(action)s, %(child_id)s)
ON CONFLICT (job_id, key) DO UPDATE SET child_id = excluded.child_id, reason = NULL,
    action = CASE WHEN job_objects.child_id IS NULL THEN excluded.action ELSE job_objects.action END;

-- name: note
INSERT INTO ragcore.job_objects (job_id, key, action, reason)
VALUES (%(job_id)s, %(key)s, %(action)s, %(reason)s)
ON CONFLICT (job_id, key) DO UPDATE SET action = excluded.action, reason = excluded.reason
    WHERE job_objects.child_id IS NULL OR excluded.action = 'deleted';

-- name: fetched
UPDATE ragcore.versions
SET sha256 = %(sha256)s, size_bytes = %(size_bytes)s, source = %(source)s, filename = %(filename)s,
    mime_type = %(mime_type)s,
    metadata = nullif(coalesce(metadata, '{}') || %(metadata)s, '{}')  -- null: not given
WHERE version_id = %(version_id)s;

-- name: park
UPDATE ragcore.jobs
SET stage = NULL, progress = 0, result = %(result)s, error = %(error)s,
    lease_owner = NULL, lease_token = NULL, lease_until = NULL
WHERE job_id = %(job_id)s AND lease_token = %(token)s AND status = 'running';

-- name: parked
SELECT job_id, result, error FROM ragcore.jobs
WHERE kind = 'bucket' AND status = 'running' AND lease_until IS NULL
ORDER BY created_at
LIMIT 100;

-- name: children
SELECT parent_id,
       CASE WHEN status = 'succeeded' THEN outcome WHEN status IN ('failed', 'cancelled') THEN status
            ELSE 'waiting' END AS ended,
       count(*) AS jobs
FROM ragcore.jobs
WHERE parent_id = ANY(%(job_ids)s)
GROUP BY 1, 2;

-- name: actions
SELECT job_id, action, count(*) AS objects
FROM ragcore.job_objects
WHERE job_id = ANY(%(job_ids)s) AND (child_id IS NOT NULL OR action = 'deleted')
GROUP BY 1, 2;

-- name: settle
UPDATE ragcore.jobs
SET result = %(result)s, progress = %(progress)s,
    status = CASE WHEN NOT %(is_over)s THEN status WHEN error IS NULL THEN 'succeeded' ELSE 'failed' END,
    finished_at = CASE WHEN %(is_over)s THEN now() END
WHERE job_id = %(job_id)s AND status = 'running' AND lease_until IS NULL
RETURNING *;

-- name: objects
SELECT o.key, o.action, o.reason, o.child_id, j.status, j.outcome, j.error
FROM ragcore.job_objects o
LEFT JOIN ragcore.jobs j ON j.job_id = o.child_id
WHERE o.job_id = %(job_id)s AND (%(after)s::text IS NULL OR o.key > %(after)s)
ORDER BY o.key
LIMIT %(limit)s;

-- name: state
SELECT extract(epoch FROM now() - max(created_at))::float8 AS started,
       extract(epoch FROM now() - max(finished_at) FILTER (WHERE status = 'succeeded'))::float8 AS succeeded,
       coalesce(bool_or(status = 'queued' OR status = 'running' AND lease_until IS NOT NULL), false)
           AS is_under_way
FROM ragcore.jobs
WHERE kind = 'bucket' AND collection = %(collection)s AND document_id = %(document_id)s
  AND NOT (arguments ->> 'dry_run')::boolean;
