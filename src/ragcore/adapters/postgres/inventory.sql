-- What PostgreSQL holds, compared with itself and with the blob store. {table} is a table of chunks,
-- checked by generations.py. Every DELETE says again what it is about: nothing is taken on trust.

-- name: create_listed
CREATE TEMPORARY TABLE listed (
    version_id uuid NOT NULL,
    name       text NOT NULL,
    age        float8 NOT NULL,
    PRIMARY KEY (version_id, name)
) ON COMMIT DROP;

-- name: add_listed
INSERT INTO listed
SELECT * FROM unnest(%(version_ids)s::uuid[], %(names)s::text[], %(ages)s::float8[])
ON CONFLICT DO NOTHING;

-- name: orphaned_files
SELECT l.version_id
FROM listed l
WHERE (%(after)s::uuid IS NULL OR l.version_id > %(after)s)
  AND NOT EXISTS (
      SELECT FROM ragcore.versions v
      JOIN ragcore.documents d USING (document_no)
      LEFT JOIN ragcore.versions c ON c.version_id = d.version_id
      WHERE v.version_id = l.version_id AND {standing})
GROUP BY l.version_id
HAVING min(l.age) > %(older_than)s
ORDER BY l.version_id
LIMIT %(limit)s;

-- name: standing
-- As live_versions in catalog.sql has it.
(v.state IN ('pending', 'current') OR (v.state = 'failed' AND v.sequence > coalesce(c.sequence, 0)))

-- name: lacking
-- An object of a bucket that was not fetched yet has no file, and no hash.
SELECT d.collection, d.document_id, v.version_id, d.version_id = v.version_id AS is_in_place,
       v.sha256, v.filename, v.mime_type, d.title, v.uri, v.source, v.marks
FROM ragcore.versions v
JOIN ragcore.documents d USING (document_no)
LEFT JOIN ragcore.versions c ON c.version_id = d.version_id
WHERE (%(after)s::uuid IS NULL OR v.version_id > %(after)s)
  AND {standing} AND v.sha256 <> ''
  AND EXISTS (
      SELECT FROM unnest(%(names)s::text[]) WITH ORDINALITY AS wanted (name, place)
      WHERE (v.state = 'current' OR place = 1)
        AND NOT EXISTS (SELECT FROM listed l
                        WHERE l.version_id = v.version_id AND l.name = wanted.name))
ORDER BY v.version_id
LIMIT %(limit)s;

-- name: tables
SELECT name FROM ragcore.collections
UNION ALL
SELECT table_name FROM ragcore.generations
ORDER BY 1;

-- name: orphaned_chunks
-- Nodes of LlamaIndex users that name no document of the catalogue are their own affair.
SELECT t.id AS example, count(*) OVER () AS found
FROM vecs."{table}" t
LEFT JOIN ragcore.documents d ON d.document_no = t.document_no
WHERE (t.document_no IS NOT NULL OR NOT t.own_metadata)
  AND (d.document_no IS NULL OR (d.version_id IS NULL AND NOT t.own_metadata))
LIMIT %(examples)s;

-- name: delete_orphaned_chunks
DELETE FROM vecs."{table}" WHERE ctid = ANY (ARRAY(
    SELECT t.ctid
    FROM vecs."{table}" t
    LEFT JOIN ragcore.documents d ON d.document_no = t.document_no
    WHERE (t.document_no IS NOT NULL OR NOT t.own_metadata)
      AND (d.document_no IS NULL OR (d.version_id IS NULL AND NOT t.own_metadata))
    LIMIT %(limit)s
    FOR UPDATE OF t SKIP LOCKED));

-- name: orphaned_words
SELECT p.term AS example, count(*) OVER () AS found
FROM ragcore."postings_{table}" p
WHERE NOT EXISTS (SELECT FROM vecs."{table}" t WHERE t.chunk_no = p.chunk_no)
LIMIT %(examples)s;

-- name: delete_orphaned_words
DELETE FROM ragcore."postings_{table}" WHERE ctid = ANY (ARRAY(
    SELECT p.ctid
    FROM ragcore."postings_{table}" p
    WHERE NOT EXISTS (SELECT FROM vecs."{table}" t WHERE t.chunk_no = p.chunk_no)
    LIMIT %(limit)s
    FOR UPDATE SKIP LOCKED));

-- name: missing_words
SELECT t.id AS example, count(*) OVER () AS found
FROM vecs."{table}" t
WHERE {wordless}
LIMIT %(examples)s;

-- name: wordless
-- Some texts have no words: numbers of pages, stop words alone.
NOT EXISTS (SELECT FROM ragcore."postings_{table}" p WHERE p.chunk_no = t.chunk_no)
AND to_tsvector(t.config::regconfig, ragcore.words_of(concat_ws(E'\n', t.context, coalesce(
        t.metadata ->> 'text', ragcore.text_in_node(t.metadata))))) <> ''::tsvector

-- name: write_missing_words
-- Touched, so that the table's own trigger writes their words.
UPDATE vecs."{table}" SET config = config WHERE ctid = ANY (ARRAY(
    SELECT t.ctid FROM vecs."{table}" t
    WHERE {wordless}
    LIMIT %(limit)s
    FOR UPDATE OF t SKIP LOCKED));

-- name: miscounted
-- Both sides of one snapshot, in which every writer's rows and counts are together.
WITH counted AS (
    SELECT language, config, sum(chunks) AS chunks, sum(words) AS words
    FROM ragcore.chunk_counts WHERE collection = %(table)s
    GROUP BY language, config
), actual AS (
    SELECT t.language, t.config, count(*) AS chunks, coalesce(sum(p.words), 0) AS words
    FROM vecs."{table}" t
    LEFT JOIN (SELECT chunk_no, sum(tf) AS words FROM ragcore."postings_{table}" GROUP BY chunk_no) p
         USING (chunk_no)
    GROUP BY t.language, t.config
)
SELECT coalesce(a.language, c.language) AS language, coalesce(a.config, c.config) AS config,
       coalesce(a.chunks, 0) - coalesce(c.chunks, 0) AS chunks,
       coalesce(a.words, 0) - coalesce(c.words, 0) AS words
FROM actual a
FULL JOIN counted c ON c.config = a.config AND c.language IS NOT DISTINCT FROM a.language
WHERE coalesce(a.chunks, 0) <> coalesce(c.chunks, 0)
   OR abs(coalesce(a.words, 0) - coalesce(c.words, 0)) > coalesce(a.words, 0) / 100.0

-- name: add_missing_counts
-- Counts are only ever added to, so whoever writes at the same time is not in the way.
INSERT INTO ragcore.chunk_counts (collection, language, config, chunks, words)
SELECT %(table)s, language, config, chunks, words FROM ({miscounted}) AS missing;

-- name: take_counting_turn
-- Two that add the same difference would count it twice.
SELECT pg_advisory_xact_lock(hashtextextended('ragcore.inventory:' || %(table)s, 0));

-- name: current_versions
SELECT d.collection, d.document_id, d.document_no, v.version_id, true AS is_in_place, v.sha256,
       v.filename, v.mime_type, d.title, v.uri, v.source, v.marks, v.chunks
FROM ragcore.documents d
JOIN ragcore.versions v ON v.version_id = d.version_id
WHERE (%(after)s::uuid IS NULL OR v.version_id > %(after)s)
ORDER BY v.version_id
LIMIT %(limit)s;

-- name: count_chunks
SELECT v.version_id
FROM unnest(%(version_ids)s::uuid[]) AS asked (version_id)
JOIN ragcore.versions v USING (version_id)
JOIN ragcore.documents d ON d.version_id = v.version_id  -- still in place
WHERE v.fingerprint <> 'altered'  -- by a user of LlamaIndex's, on purpose: see nodes.sql
  AND v.chunks <> (SELECT count(*) FROM vecs."{table}" t
                   WHERE t.document_no = d.document_no AND NOT t.own_metadata);

-- name: stranded_versions
SELECT d.collection || '/' || d.document_id AS example, count(*) OVER () AS found
FROM ragcore.versions v
JOIN ragcore.documents d USING (document_no)
WHERE v.state = 'pending'
  AND NOT EXISTS (SELECT FROM ragcore.jobs j
                  WHERE j.version_id = v.version_id AND j.status IN ('queued', 'running'))
LIMIT %(examples)s;

-- name: fail_stranded_versions
UPDATE ragcore.versions v SET state = 'failed'
WHERE v.state = 'pending'
  AND NOT EXISTS (SELECT FROM ragcore.jobs j
                  WHERE j.version_id = v.version_id AND j.status IN ('queued', 'running'));

-- name: create_used
CREATE TEMPORARY TABLE used (text_hash bytea PRIMARY KEY) ON COMMIT DROP;

-- name: add_used
INSERT INTO used SELECT * FROM unnest(%(hashes)s::bytea[]) ON CONFLICT DO NOTHING;

-- name: unused_vectors
SELECT count(*) AS found
FROM ragcore.embedding_cache c
WHERE c.used_at < now() - make_interval(secs => %(older_than)s)
  AND NOT EXISTS (SELECT FROM used u WHERE u.text_hash = c.text_hash);

-- name: forget_unused_vectors
DELETE FROM ragcore.embedding_cache c
WHERE c.used_at < now() - make_interval(secs => %(older_than)s)
  AND NOT EXISTS (SELECT FROM used u WHERE u.text_hash = c.text_hash);

-- name: lock_document
SELECT d.version_id, d.last_sequence, v.sequence
FROM ragcore.documents d
LEFT JOIN ragcore.versions v ON v.version_id = d.version_id
WHERE d.collection = %(collection)s AND d.document_id = %(document_id)s
FOR UPDATE OF d;

-- name: bucket_prefixes
SELECT DISTINCT collection, bucket FROM ragcore.sources ORDER BY 1, 2;
