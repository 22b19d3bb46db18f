-- What search reads: one statement for both legs, made of fragments by search.py.
-- {collection} is a checked name, {table} that of its table (another one for a generation that does
-- not answer yet), the other names in braces are fragments of this file or conditions
-- made by filters.py.

-- name: both_legs
-- Both legs from one snapshot; search.py puts fragments in place of what stands in braces.
{opening}, nearest AS MATERIALIZED (
    {nearest}
), terms AS MATERIALIZED (
    {terms}
), essential AS MATERIALIZED (
    -- The rarest words propose; common ones are only looked up for what those propose.
    SELECT term, idf
    FROM (SELECT *, sum(frequency) OVER (ORDER BY frequency, term) AS running FROM terms) ranked
    WHERE frequency > 0
      AND (running <= %(postings)s OR running - frequency < 10 * %(keyword_limit)s)
), wanted AS MATERIALIZED (
    -- Where common words are still to be added, more chunks than asked for may come out on top.
    SELECT CASE WHEN (SELECT count(*) FROM essential)
                   < (SELECT count(*) FROM terms WHERE frequency > 0)
                THEN 10 ELSE 1 END * %(keyword_limit)s AS rows
), worded AS MATERIALIZED (
    {worded}
), scored AS MATERIALIZED (
    SELECT chunk_no, sum(found.score) AS bm25, array_agg(terms.term ORDER BY terms.term) AS matched
    FROM (SELECT chunk_no FROM nearest UNION SELECT chunk_no FROM worded) proposed
    CROSS JOIN terms
    CROSS JOIN LATERAL (
        SELECT {bm25} AS score
        FROM ragcore."postings_{table}" p
        WHERE p.term = terms.term AND p.chunk_no = proposed.chunk_no
        OFFSET 0  -- look up, never read whole lists again
    ) found
    GROUP BY chunk_no
), ranked AS (
    SELECT chunk_no, max(vector_rank) AS vector_rank, max(keyword_rank) AS keyword_rank
    FROM (
        SELECT chunk_no, row_number() OVER (ORDER BY distance, chunk_no) AS vector_rank,
               NULL::bigint AS keyword_rank
        FROM nearest
        UNION ALL
        (SELECT chunk_no, NULL, row_number() OVER (ORDER BY bm25 DESC, chunk_no) AS keyword_rank
         FROM worded JOIN scored USING (chunk_no)
         ORDER BY keyword_rank
         LIMIT %(keyword_limit)s)
    ) legs
    GROUP BY chunk_no
)
SELECT {header},
       (SELECT count(*) FROM essential) AS essential_terms,
       (SELECT json_agg(json_build_array(term, frequency, idf, configurations)
                        ORDER BY frequency, term)::text FROM terms) AS terms,
       {passage},
       {cosine} AS cosine, coalesce(scored.bm25, 0) AS bm25, scored.matched,
       ranked.vector_rank, ranked.keyword_rank
FROM (VALUES (1)) one (row)
LEFT JOIN (
    ranked
    JOIN vecs."{table}" t USING (chunk_no)
    LEFT JOIN scored USING (chunk_no)
    LEFT JOIN ragcore.documents d USING (document_no)
) ON true
ORDER BY ranked.vector_rank, ranked.keyword_rank;

-- name: vector_leg
{opening}, nearest AS MATERIALIZED (
    {nearest}
)
SELECT {header}, 0 AS essential_terms, NULL AS terms, {passage},
       1 - nearest.distance AS cosine, 0::float8 AS bm25, NULL AS matched,
       row_number() OVER (ORDER BY nearest.distance, nearest.chunk_no) AS vector_rank,
       NULL AS keyword_rank
FROM (VALUES (1)) one (row)
LEFT JOIN (
    nearest
    JOIN vecs."{table}" t USING (chunk_no)
    LEFT JOIN ragcore.documents d USING (document_no)
) ON true
ORDER BY vector_rank;

-- name: nearest_of_many
-- The vector leg over a collection that is known to be large, without a filter: one branch, which
-- is planned in a third of the time. What holds of the collection is a row of its own, the first.
-- {vector_limit} is a number in the text, not a parameter: so one plan is as good for every
-- question, and is kept where sessions are.
SELECT chunks AS total_chunks,
       (SELECT embedding FROM ragcore.collections WHERE name = '{collection}') AS embedding,
       (SELECT generation FROM ragcore.collections WHERE name = '{collection}') AS generation,
       0 AS matching, false AS are_few, NULL AS languages, 0 AS essential_terms, NULL AS terms,
       NULL AS id, NULL AS ordinal, NULL AS language, NULL AS stored, NULL AS own_metadata,
       NULL AS document_id, NULL AS title, NULL AS uri, NULL AS document_metadata,
       NULL AS cosine, NULL AS bm25, NULL AS matched, NULL AS vector_rank, NULL AS keyword_rank
FROM (SELECT coalesce(sum(chunks), 0)::bigint AS chunks
      FROM ragcore.chunk_counts WHERE collection = '{table}') total
UNION ALL
(SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, {passage},
        1 - t.distance, 0::float8, NULL, row_number() OVER (ORDER BY t.distance, t.chunk_no), NULL
 FROM (SELECT id, chunk_no, document_no, document_id, ordinal, language, metadata, own_metadata,
              vec <=> %(vector)s AS distance
       FROM vecs."{table}"
       ORDER BY vec <=> %(vector)s
       LIMIT {vector_limit}) t
 LEFT JOIN ragcore.documents d USING (document_no))
ORDER BY vector_rank NULLS FIRST;

-- name: opening
-- Few rows to look at (a narrow filter, a small collection) are scanned exactly; many are met on
-- the way through the vector index. The branch not taken costs nothing: its condition is checked
-- once, before it starts.
WITH counts AS MATERIALIZED (
    SELECT config, language, sum(chunks) AS chunks, sum(words) AS words
    FROM ragcore.chunk_counts
    WHERE collection = '{table}'
    GROUP BY config, language
), total AS MATERIALIZED (
    SELECT coalesce(sum(chunks), 0)::bigint AS chunks,
           greatest(sum(words) / nullif(sum(chunks), 0), 1)::float8 AS mean_length
    FROM counts
), matching AS MATERIALIZED (
    {matching}
), few AS MATERIALIZED (
    {few}
);

-- name: header
(SELECT chunks FROM total) AS total_chunks,
       (SELECT embedding FROM ragcore.collections WHERE name = '{collection}') AS embedding,
       (SELECT generation FROM ragcore.collections WHERE name = '{collection}') AS generation,
       (SELECT count(*) FROM matching) AS matching,
       (SELECT are_few FROM few) AS are_few,
       (SELECT json_agg(json_build_array(language, chunks))::text FROM counts
        WHERE language IS NOT NULL AND chunks > 0) AS languages;

-- name: passage
t.id, t.ordinal, t.language, t.metadata AS stored, t.own_metadata,
       coalesce(t.document_id, t.metadata ->> 'doc_id', '') AS document_id,
       d.title, d.uri, d.metadata AS document_metadata;

-- name: none
SELECT NULL::bigint AS chunk_no, NULL::float8 AS distance WHERE false;

-- name: matching
-- What the filter lets through, no further than one row over the limit.
SELECT chunk_no, distance FROM (
    SELECT t.chunk_no, {distance} AS distance
    FROM ragcore.documents d JOIN vecs."{table}" t USING (document_no)
    WHERE d.collection = '{collection}' AND NOT t.own_metadata AND ({document_filter})
    UNION ALL
    SELECT t.chunk_no, {distance} FROM vecs."{table}" t
    WHERE t.own_metadata AND ({own_filter})
) found
LIMIT %(exact_rows)s::bigint + 1;

-- name: few_matching
SELECT count(*) <= %(exact_rows)s AS are_few FROM matching;

-- name: few_at_all
SELECT chunks <= %(exact_rows)s AS are_few FROM total;

-- name: lets_through
-- The filter on a row met elsewhere. A scalar subquery, for the planner can't turn it into a join
-- and lose the order of the vector index.
CASE WHEN t.own_metadata THEN ({own_filter}) ELSE (
    SELECT {document_filter} FROM ragcore.documents d WHERE d.document_no = t.document_no
) END;

-- name: nearest
(SELECT t.chunk_no, t.vec <=> %(vector)s AS distance
 FROM vecs."{table}" t
 WHERE NOT (SELECT are_few FROM few)
 ORDER BY t.vec <=> %(vector)s
 LIMIT %(vector_limit)s)
UNION ALL
(SELECT chunk_no, distance
 FROM (SELECT t.chunk_no, t.vec <=> %(vector)s AS distance
       FROM vecs."{table}" t
       WHERE (SELECT are_few FROM few)
       OFFSET 0) every
 ORDER BY distance
 LIMIT %(vector_limit)s);

-- name: nearest_matching
(SELECT t.chunk_no, t.vec <=> %(vector)s AS distance
 FROM vecs."{table}" t
 WHERE NOT (SELECT are_few FROM few) AND {lets_through}
 ORDER BY t.vec <=> %(vector)s
 LIMIT %(vector_limit)s)
UNION ALL
(SELECT chunk_no, distance
 FROM matching
 WHERE (SELECT are_few FROM few)
 ORDER BY distance
 LIMIT %(vector_limit)s);

-- name: terms
-- The question's lexemes under every configuration the collection holds. The configuration that
-- drops the most words knows the question's language: what it drops is no word for the others.
-- Frequent words are counted up to a limit, in order of chunk_no; how many there are in all follows
-- from how far that reached.
SELECT term, frequency, configurations,
       ln(1 + (greatest((SELECT chunks FROM total) - frequency, 0) + 0.5) / (frequency + 0.5))::float8
           AS idf
FROM (
    WITH read AS MATERIALIZED (
        SELECT config, lexeme, position
        FROM (SELECT DISTINCT config FROM counts WHERE chunks > 0) held
        CROSS JOIN LATERAL unnest(to_tsvector(config::regconfig, ragcore.words_of(%(text)s)))
        CROSS JOIN LATERAL unnest(positions) position
    ), numbers AS MATERIALIZED (
        SELECT min(chunk_no) AS oldest, max(chunk_no) AS newest FROM vecs."{table}"
    ), kept AS (
        SELECT position FROM read WHERE config = (
            SELECT config FROM read GROUP BY config ORDER BY count(*), config LIMIT 1)
    )
    SELECT lexeme AS term, (
        SELECT CASE WHEN count(*) < %(most_counted)s THEN count(*) ELSE least(
                   (SELECT chunks FROM total),
                   count(*) * (SELECT newest - oldest + 1 FROM numbers)
                       / (max(chunk_no) - (SELECT oldest FROM numbers) + 1)) END
        FROM (
            SELECT chunk_no FROM ragcore."postings_{table}" p WHERE p.term = read.lexeme
            ORDER BY chunk_no LIMIT %(most_counted)s
        ) counted
    ) AS frequency, array_agg(DISTINCT config) AS configurations
    FROM read
    WHERE position IN (SELECT position FROM kept)
    GROUP BY lexeme
    ORDER BY min(position)
    LIMIT %(most_terms)s
) asked;

-- name: bm25
-- k1 = 1.2, b = 0.75
terms.idf * 2.2 * p.tf
    / (p.tf + 1.2 * (0.25 + p.length / (SELECT mean_length FROM total) * 0.75));

-- name: worded
SELECT chunk_no
FROM (
    SELECT chunk_no, sum(p.score) AS score
    FROM essential terms
    CROSS JOIN LATERAL (
        SELECT p.chunk_no, {bm25} AS score
        FROM ragcore."postings_{table}" p
        WHERE p.term = terms.term
    ) p
    GROUP BY chunk_no
) summed
ORDER BY score DESC, chunk_no
LIMIT (SELECT rows FROM wanted);

-- name: worded_matching
(SELECT chunk_no
 FROM (
    SELECT chunk_no, sum(p.score) AS score
    FROM essential terms
    CROSS JOIN LATERAL (
        SELECT p.chunk_no, {bm25} AS score
        FROM ragcore."postings_{table}" p
        WHERE p.term = terms.term AND NOT (SELECT are_few FROM few)
    ) p
    GROUP BY chunk_no
    ORDER BY score DESC, chunk_no
 ) summed
 CROSS JOIN LATERAL (
    SELECT FROM vecs."{table}" t WHERE t.chunk_no = summed.chunk_no AND {lets_through} OFFSET 0
 ) matched
 ORDER BY score DESC, chunk_no
 LIMIT (SELECT rows FROM wanted))
UNION ALL
(SELECT chunk_no
 FROM (
    SELECT matching.chunk_no, sum(p.score) AS score
    FROM matching
    CROSS JOIN terms
    CROSS JOIN LATERAL (
        SELECT {bm25} AS score
        FROM ragcore."postings_{table}" p
        WHERE p.term = terms.term AND p.chunk_no = matching.chunk_no
          AND (SELECT are_few FROM few)
        OFFSET 0
    ) p
    GROUP BY matching.chunk_no
 ) summed
 ORDER BY score DESC, chunk_no
 LIMIT (SELECT rows FROM wanted));

-- name: distance
t.vec <=> %(vector)s;

-- name: no_distance
NULL::float8;

-- name: cosine
1 - (t.vec <=> %(vector)s);

-- name: no_cosine
NULL::float8;
