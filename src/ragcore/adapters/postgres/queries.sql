-- Chunks: writing a document's, reading them back, and what search reads.
-- {collection} is filled in with a checked name, see steps/identity.py.

-- name: delete_document_chunks
DELETE FROM vecs."{collection}" WHERE document_no = ANY(%(document_nos)s);

-- name: delete_nodes_of
-- Nodes that a LlamaIndex user added to these documents, beside what was ingested of them. A row of
-- a stock client names its document in metadata alone. Gathered first: each part has its index.
WITH theirs AS (
    SELECT id FROM vecs."{collection}" WHERE own_metadata AND document_id = ANY(%(document_ids)s)
    UNION
    SELECT t.id
    FROM unnest(%(named)s::jsonb[]) AS n (named)
    JOIN vecs."{collection}" t ON t.own_metadata AND t.metadata @> n.named
)
DELETE FROM vecs."{collection}" t USING theirs WHERE t.id = theirs.id;

-- name: copy_chunks
COPY vecs."{collection}" (id, vec, metadata, document_no, document_id, ordinal, tokens, language,
                          config, context, own_metadata)
FROM STDIN (FORMAT BINARY);

-- name: passages
SELECT t.id, t.document_no, t.ordinal, t.language, t.metadata AS stored, t.own_metadata,
       coalesce(t.document_id, t.metadata ->> 'doc_id', '') AS document_id,
       d.title, d.uri, d.metadata AS document_metadata
FROM unnest(%(chunk_ids)s::text[]) WITH ORDINALITY AS wanted (id, place)
JOIN vecs."{collection}" t ON t.id = wanted.id
LEFT JOIN ragcore.documents d ON d.document_no = t.document_no
ORDER BY wanted.place;

-- name: document_chunks
SELECT t.id, t.document_no, t.ordinal, t.language, t.metadata AS stored, t.own_metadata,
       t.document_id, d.title, d.uri, d.metadata AS document_metadata
FROM vecs."{collection}" t
JOIN ragcore.documents d ON d.document_no = t.document_no
WHERE d.collection = '{collection}' AND d.document_id = %(document_id)s
  AND t.ordinal >= %(first)s
ORDER BY t.ordinal
LIMIT %(limit)s;

-- name: neighbours
SELECT w.id AS asked, t.id, t.document_no, t.ordinal, t.language, t.metadata AS stored,
       t.own_metadata, coalesce(t.document_id, t.metadata ->> 'doc_id', '') AS document_id,
       d.title, d.uri, d.metadata AS document_metadata
FROM vecs."{collection}" w
JOIN vecs."{collection}" t
  ON t.id = w.id OR (t.document_no = w.document_no
     AND t.ordinal BETWEEN w.ordinal - %(radius)s AND w.ordinal + %(radius)s)
LEFT JOIN ragcore.documents d ON d.document_no = t.document_no
WHERE w.id = ANY(%(chunk_ids)s)
ORDER BY w.id, t.ordinal, t.id;
