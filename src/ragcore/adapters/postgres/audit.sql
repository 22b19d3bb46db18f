-- The audit trail.

-- name: record
INSERT INTO ragcore.audit (action, actor, collection, target, request_id, details)
VALUES (%(action)s, %(actor)s, %(collection)s, %(target)s, %(request_id)s, %(details)s);

-- name: entries
SELECT * FROM ragcore.audit
WHERE (%(collections)s::text[] IS NULL OR collection = ANY(%(collections)s))
  AND (%(action)s::text IS NULL OR action = %(action)s)
  AND (%(before)s::bigint IS NULL OR entry_no < %(before)s)
ORDER BY entry_no DESC
LIMIT %(limit)s;
