-- What has been kept long enough. Rows that somebody else holds are left for the next time: nothing
-- here waits for a lock, so nothing deadlocks.

-- name: forget_jobs
-- Their callbacks go with them.
WITH old AS MATERIALIZED (
    SELECT j.job_id
    FROM ragcore.jobs j
    WHERE j.finished_at < now() - %(older_than)s
      AND j.status IN ('succeeded', 'failed', 'cancelled')
      AND NOT EXISTS (SELECT FROM ragcore.callbacks c
                      WHERE c.job_id = j.job_id AND c.settled_at IS NULL)
    ORDER BY j.finished_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
DELETE FROM ragcore.jobs USING old WHERE jobs.job_id = old.job_id;

-- name: forget_versions
WITH old AS MATERIALIZED (
    SELECT v.version_id
    FROM ragcore.versions v
    WHERE v.state IN ('replaced', 'superseded', 'failed')
      AND NOT EXISTS (SELECT FROM ragcore.jobs j WHERE j.version_id = v.version_id)
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
DELETE FROM ragcore.versions USING old WHERE versions.version_id = old.version_id;

-- name: lock_empty_documents
SELECT d.document_no
FROM ragcore.documents d
WHERE d.version_id IS NULL
  AND NOT EXISTS (SELECT FROM ragcore.versions v WHERE v.document_no = d.document_no)
LIMIT %(limit)s
FOR UPDATE SKIP LOCKED;

-- name: forget_empty_documents
-- Looked at again, now that they are locked: a version may have come in between.
DELETE FROM ragcore.documents d
WHERE d.document_no = ANY(%(document_nos)s) AND d.version_id IS NULL
  AND NOT EXISTS (SELECT FROM ragcore.versions v WHERE v.document_no = d.document_no);

-- name: forget_idempotency_keys
WITH old AS MATERIALIZED (
    SELECT scope, key
    FROM ragcore.idempotency_keys
    WHERE created_at < now() - interval '24 hours'
    ORDER BY created_at
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
DELETE FROM ragcore.idempotency_keys USING old WHERE idempotency_keys.scope = old.scope AND idempotency_keys.key = old.key;

-- name: forget_audit
WITH old AS MATERIALIZED (
    SELECT entry_no
    FROM ragcore.audit
    WHERE at < now() - %(older_than)s
    ORDER BY at, entry_no
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED
)
DELETE FROM ragcore.audit USING old WHERE audit.entry_no = old.entry_no;
