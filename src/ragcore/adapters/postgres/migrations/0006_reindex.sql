-- Collections that move to another embedding model or chunker, and the tables beside the one that
-- answers: docs/decisions/0008-reindex.md.

CREATE SEQUENCE ragcore.generation_numbers AS integer START 2;  -- 1: as a collection was made

-- Every generation of a collection but the one that answers, which is ragcore.collections' own row.
CREATE TABLE ragcore.generations (
    collection text        NOT NULL REFERENCES ragcore.collections ON DELETE CASCADE,
    generation integer     NOT NULL,
    state      text        NOT NULL CHECK (state IN ('filling', 'ready', 'retired')),
    table_name text        NOT NULL UNIQUE,  -- in schema vecs; it begins with _ and holds a dot
    embedding  jsonb       NOT NULL,
    chunker    text        NOT NULL,
    job_id     uuid,                         -- that fills it, or filled it
    created_at timestamptz NOT NULL DEFAULT now(),
    retired_at timestamptz,
    PRIMARY KEY (collection, generation)
);
CREATE UNIQUE INDEX generations_shadow ON ragcore.generations (collection) WHERE state <> 'retired';

-- Which version of each document such a generation holds. Without a row, or with another version
-- than the one in place, it lacks the document.
CREATE TABLE ragcore.generation_documents (
    collection  text    NOT NULL,
    generation  integer NOT NULL,
    document_no bigint  NOT NULL REFERENCES ragcore.documents ON DELETE CASCADE,
    version_id  uuid    NOT NULL,
    chunks      integer NOT NULL,
    failure     jsonb,               -- why it could not be taken over
    PRIMARY KEY (collection, generation, document_no),
    FOREIGN KEY (collection, generation) REFERENCES ragcore.generations ON DELETE CASCADE
);
CREATE INDEX generation_documents_document ON ragcore.generation_documents (document_no);
