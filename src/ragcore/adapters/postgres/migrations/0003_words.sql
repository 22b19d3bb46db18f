-- Words are written in order of terms: postings that lie on one page of the index are then written
-- one after another. Otherwise as in 0002_chunks.sql.
CREATE OR REPLACE FUNCTION ragcore.keep_words() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    postings CONSTANT text := format('ragcore.%I', 'postings_' || TG_TABLE_NAME);
BEGIN
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        EXECUTE format($sql$
            WITH removed AS (
                DELETE FROM %s WHERE chunk_no IN (SELECT chunk_no FROM gone) RETURNING chunk_no, tf
            ), lengths AS (
                SELECT chunk_no, sum(tf) AS words FROM removed GROUP BY chunk_no
            )
            INSERT INTO ragcore.chunk_counts
            SELECT %L, language, config, -count(*), -coalesce(sum(words), 0)
            FROM gone LEFT JOIN lengths USING (chunk_no)
            GROUP BY language, config
        $sql$, postings, TG_TABLE_NAME);
    END IF;
    IF TG_OP IN ('UPDATE', 'INSERT') THEN
        -- ts_rank counts the words: normalization 2 divides a rank, whatever it is, by how many
        -- there are. To unnest them a second time costs ten times as much.
        EXECUTE format($sql$
            WITH read AS MATERIALIZED (
                SELECT chunk_no, language, config,
                       to_tsvector(config::regconfig,
                                   ragcore.words_of(concat_ws(E'\n', context, coalesce(
                                       metadata ->> 'text', ragcore.text_in_node(metadata)))))
                           AS words
                FROM added
            ), counted AS MATERIALIZED (
                SELECT chunk_no, language, config, words,
                       coalesce(round(ts_rank(words, 'a & b')
                                      / nullif(ts_rank(words, 'a & b', 2), 0))::int, 0) AS length
                FROM read
            ), written AS (
                INSERT INTO %s (chunk_no, tf, length, term)
                SELECT chunk_no, cardinality(positions), least(length, 32767), lexeme
                FROM counted CROSS JOIN LATERAL unnest(words)
                ORDER BY lexeme COLLATE "C", chunk_no
            )
            INSERT INTO ragcore.chunk_counts
            SELECT %L, language, config, count(*), sum(length)
            FROM counted
            GROUP BY language, config
        $sql$, postings, TG_TABLE_NAME);
    END IF;
    PERFORM ragcore.fold_counts(TG_TABLE_NAME);
    RETURN NULL;
END $$;
