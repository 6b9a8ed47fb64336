-- The partitions by name. Row counts are the planner's estimates, -1 before the first ANALYZE.
SELECT partition.relname::text AS name,
       partition.reltuples::float8 AS estimated_rows,
       pg_total_relation_size(partition.oid) AS bytes
FROM pg_inherits
JOIN pg_class AS partition ON partition.oid = inhrelid
WHERE inhparent = 'events_raw'::regclass
ORDER BY 1
