-- Callbacks: who wants to hear how a job ended. Rows are made with their job (catalog.sql).

-- name: claim_due
-- Pushing run_after forward is the lease: a holder that dies leaves the delivery due again.
WITH due AS (
    SELECT c.job_id
    FROM ragcore.callbacks c
    JOIN ragcore.jobs j USING (job_id)
    WHERE c.settled_at IS NULL AND c.run_after <= now()
      AND j.status IN ('succeeded', 'failed', 'cancelled')
    ORDER BY c.run_after
    LIMIT %(limit)s
    FOR UPDATE OF c SKIP LOCKED
), held AS (
    UPDATE ragcore.callbacks c
    SET run_after = now() + %(lease)s, attempts = c.attempts + 1
    FROM due
    WHERE c.job_id = due.job_id
    RETURNING c.job_id, c.url, c.attempts - 1 AS tried
)
SELECT j.*, held.url, held.tried
FROM held
JOIN ragcore.jobs j USING (job_id);

-- name: delivered
-- Of a job that was run again meanwhile the next end is still owed.
UPDATE ragcore.callbacks c
SET settled_at = now(), error = NULL
FROM ragcore.jobs j
WHERE c.job_id = %(job_id)s AND j.job_id = c.job_id
  AND j.status IN ('succeeded', 'failed', 'cancelled');

-- name: failed
UPDATE ragcore.callbacks
SET error = %(error)s,
    run_after = now() + coalesce(%(after)s, interval '0'),
    settled_at = CASE WHEN %(after)s::interval IS NULL THEN now() END
WHERE job_id = %(job_id)s AND settled_at IS NULL;
