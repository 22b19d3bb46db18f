-- What the tables of all collections share (collection.sql makes those tables).

-- How many chunks and words a collection holds, per language. Append-only: a write adds a row with
-- what it put in or (negative) took out, so that writers never wait for one another.
CREATE TABLE ragcore.chunk_counts (
    collection text   NOT NULL,
    language   text,
    config     text   NOT NULL,
    chunks     bigint NOT NULL,
    words      bigint NOT NULL
);
CREATE INDEX chunk_counts_collection ON ragcore.chunk_counts (collection);

-- Filters look at what the parser found where the caller's metadata lacks a field.
CREATE INDEX documents_extracted ON ragcore.documents USING gin (extracted jsonb_path_ops);

-- Text as keyword search reads it, on both sides: letters composed, no stress marks, soft hyphens or
-- invisible characters, and ё = е. Most text holds none of these, and looking for them is quick
-- where composing would cost as much as parsing. Of a very long text the beginning is read: a
-- tsvector holds no more than a megabyte.
CREATE FUNCTION ragcore.words_of(text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (
    SELECT CASE WHEN t ~ U&'[ёЁ\0300-\036F\1100-\11FF\3099\309A\00AD\200B\FEFF]'
                THEN translate(normalize(t, NFC), U&'ёЁ\0301\00AD\200B\FEFF', 'еЕ')
                ELSE t END
    FROM (SELECT CASE WHEN octet_length($1) > 500000 THEN left($1, 250000) ELSE $1 END) cut (t)
);

-- The text of a row that the stock SupabaseVectorStore wrote: inside a node, as a string of JSON.
CREATE FUNCTION ragcore.text_in_node(metadata jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    node jsonb;
BEGIN
    node := (metadata ->> '_node_content')::jsonb;
    RETURN coalesce(node ->> 'text', node #>> '{text_resource,text}');
EXCEPTION WHEN invalid_text_representation THEN
    RETURN NULL;  -- some other client's key of that name: no reason to refuse its row
END $$;

-- Adds up the counts of a collection once they are many. Rows that another transaction holds are
-- left for the next time: nobody waits.
CREATE FUNCTION ragcore.fold_counts(folded text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF (SELECT count(*) FROM ragcore.chunk_counts WHERE collection = folded) < 200 THEN
        RETURN;
    END IF;
    WITH free AS MATERIALIZED (
        SELECT ctid FROM ragcore.chunk_counts WHERE collection = folded FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM ragcore.chunk_counts WHERE ctid IN (SELECT ctid FROM free) RETURNING *
    )
    INSERT INTO ragcore.chunk_counts
    SELECT collection, language, config, sum(chunks), sum(words)
    FROM gone
    GROUP BY collection, language, config
    HAVING sum(chunks) <> 0 OR sum(words) <> 0;
END $$;

-- Keeps words and counts true for every write to a collection's table, by whatever client: they
-- change in the writer's own transaction. Statement triggers, so that a COPY of a thousand chunks
-- indexes its words in one statement.
CREATE FUNCTION ragcore.keep_words() RETURNS trigger
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
                       (SELECT coalesce(sum(cardinality(positions)), 0) FROM unnest(words)) AS length
                FROM read
            ), written AS (
                INSERT INTO %s (chunk_no, tf, length, term)
                SELECT chunk_no, cardinality(positions), least(length, 32767), lexeme
                FROM counted CROSS JOIN LATERAL unnest(words)
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

CREATE FUNCTION ragcore.empty_words() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('TRUNCATE ragcore.%I', 'postings_' || TG_TABLE_NAME);
    DELETE FROM ragcore.chunk_counts WHERE collection = TG_TABLE_NAME;
    RETURN NULL;
END $$;
