-- How searches run. {vectors} is the schema of the extension: `public` here, `extensions` there.

-- name: settings
-- For one transaction where a pooler may give the next one another server process.
SELECT set_config('search_path', '{vectors}', %(is_local)s),
       set_config('jit', 'off', %(is_local)s),
       set_config('hnsw.ef_search', %(ef_search)s, %(is_local)s)
       {iterating};

-- name: iterating
-- pgvector 0.8 and later.
, set_config('hnsw.iterative_scan', 'relaxed_order', %(is_local)s)
       , set_config('hnsw.max_scan_tuples', '200000', %(is_local)s);

-- name: wider_view
SELECT set_config('hnsw.ef_search', %(ef_search)s, true);
