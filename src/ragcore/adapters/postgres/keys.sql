-- API keys. A change and its entry in the audit trail are one statement.

-- name: insert_key
WITH recorded AS (
    INSERT INTO ragcore.audit (action, actor, target, request_id, details)
    VALUES (%(action)s, %(actor)s, %(target)s, %(request_id)s, %(details)s)
)
INSERT INTO ragcore.api_keys
    (key_id, name, secret_hash, scopes, collections, requests_per_minute, expires_at)
VALUES (%(key_id)s, %(name)s, %(secret_hash)s, %(scopes)s, %(collections)s,
        %(requests_per_minute)s, %(expires_at)s)
RETURNING *;

-- name: key_by_hash
SELECT * FROM ragcore.api_keys WHERE secret_hash = %(secret_hash)s;

-- name: keys
SELECT * FROM ragcore.api_keys ORDER BY created_at DESC, key_id;

-- name: revoke_key
WITH revoked AS (
    UPDATE ragcore.api_keys SET revoked_at = now()
    WHERE key_id = %(key_id)s AND revoked_at IS NULL
    RETURNING *
), recorded AS (
    INSERT INTO ragcore.audit (action, actor, target, request_id, details)
    SELECT %(action)s, %(actor)s, %(target)s, %(request_id)s, %(details)s FROM revoked
)
SELECT * FROM revoked;

-- name: key
SELECT * FROM ragcore.api_keys WHERE key_id = %(key_id)s;

-- name: used
-- In order of the id: two processes that note the same keys queue, and never deadlock.
UPDATE ragcore.api_keys SET last_used_at = now()
WHERE key_id IN (
    SELECT key_id FROM ragcore.api_keys WHERE key_id = ANY(%(key_ids)s)
    ORDER BY key_id FOR UPDATE
);
