-- Documents that come from URLs: what the server said of the bytes, to ask it whether they changed.

ALTER TABLE ragcore.versions ADD COLUMN marks jsonb;

-- A URI may be longer than an index can take.
DROP INDEX ragcore.documents_uri;
CREATE INDEX documents_uri ON ragcore.documents (collection, left(uri, 500)) WHERE uri IS NOT NULL;
