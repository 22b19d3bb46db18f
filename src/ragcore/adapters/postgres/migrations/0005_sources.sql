-- Documents that come from buckets: where from, as what they were read, and the jobs that list.

-- A job is for one document, or lists a bucket and has a child job for each document in it.
ALTER TABLE ragcore.jobs
    ADD COLUMN kind      text NOT NULL DEFAULT 'document',
    ADD COLUMN parent_id uuid,   -- it may be gone: children are kept longer
    ADD COLUMN arguments jsonb,  -- what a job of another kind was told to do
    ADD COLUMN result    jsonb;  -- what it counted
CREATE INDEX jobs_parent ON ragcore.jobs (parent_id) WHERE parent_id IS NOT NULL;
DROP INDEX ragcore.jobs_waiting;
CREATE INDEX jobs_waiting ON ragcore.jobs (kind, priority DESC, created_at) WHERE status = 'queued';
-- A listing that waits for its children: running, and held by nobody.
CREATE INDEX jobs_parked ON ragcore.jobs (created_at) WHERE status = 'running' AND lease_until IS NULL;

-- The object that a worker fetches, or has fetched: until then the hash of its bytes is empty.
ALTER TABLE ragcore.versions ADD COLUMN source jsonb;

-- Which documents come from which bucket, in the order that buckets are listed in.
CREATE TABLE ragcore.sources (
    document_no bigint PRIMARY KEY REFERENCES ragcore.documents ON DELETE CASCADE,
    collection  text   NOT NULL,
    bucket      text   NOT NULL COLLATE "C",
    key         text   NOT NULL COLLATE "C",
    UNIQUE (collection, bucket, key)
);

-- What a listing decided, object by object; those that needed nothing are only counted.
CREATE TABLE ragcore.job_objects (
    job_id   uuid NOT NULL REFERENCES ragcore.jobs ON DELETE CASCADE,
    key      text NOT NULL COLLATE "C",
    action   text NOT NULL,
    reason   text,
    child_id uuid,
    PRIMARY KEY (job_id, key)
);
