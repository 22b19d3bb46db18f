-- Rows that LlamaIndex nodes are kept in, beside the chunks of ingested documents (collection.sql).
-- {collection} is a checked name, {condition} what `nodes._condition` makes of ids and a filter.

-- name: lock_writers
SELECT pg_advisory_xact_lock(hashtextextended('ragcore.nodes:{collection}', 0));

-- name: ingested_among
SELECT t.id, t.document_no
FROM vecs."{collection}" t
WHERE t.document_no IS NOT NULL AND {condition};

-- name: lock_documents
-- In order of their ids, as every writer that locks several.
SELECT document_no, document_id
FROM ragcore.documents
WHERE collection = '{collection}'
  AND (document_id = ANY(%(document_ids)s) OR document_no = ANY(%(document_nos)s))
ORDER BY document_id COLLATE "C"
FOR UPDATE;

-- name: lock_all_documents
SELECT document_no, document_id
FROM ragcore.documents
WHERE collection = '{collection}'
ORDER BY document_id COLLATE "C"
FOR UPDATE;

-- name: mark_altered
-- Another fingerprint than any pipeline's: the next ingest of the same bytes rebuilds the document.
UPDATE ragcore.versions v
SET fingerprint = 'altered'
FROM ragcore.documents d
WHERE d.version_id = v.version_id AND d.document_no = ANY(%(document_nos)s);

-- name: copy_nodes
COPY vecs."{collection}" (id, vec, metadata, document_no, document_id, language, config, context)
FROM STDIN (FORMAT BINARY);

-- name: delete_nodes
DELETE FROM vecs."{collection}" t WHERE {condition};

-- name: delete_rows_of
-- A row of a stock client names its document in metadata alone.
DELETE FROM vecs."{collection}"
WHERE document_no = ANY(%(document_nos)s)
   OR (own_metadata AND (document_id = %(document_id)s OR metadata @> %(named)s));

-- name: nodes
SELECT t.id, t.ordinal, t.language, t.metadata AS stored, t.own_metadata,
       coalesce(t.document_id, t.metadata ->> 'doc_id', '') AS document_id,
       d.title, d.uri, d.metadata AS document_metadata
FROM vecs."{collection}" t
LEFT JOIN ragcore.documents d ON d.document_no = t.document_no
WHERE {condition}
ORDER BY t.document_no, t.ordinal, t.chunk_no;

-- name: vectors
SELECT t.id, t.vec FROM vecs."{collection}" t WHERE {condition};

-- name: matches
-- A chunk of an ingested document is filtered on its document, any other row on itself.
((NOT t.own_metadata AND t.document_no IN (
      SELECT d.document_no FROM ragcore.documents d
      WHERE d.collection = '{collection}' AND {of_document}))
 OR (t.own_metadata AND {of_row}));
