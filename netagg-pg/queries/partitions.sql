-- The months that have a partition. Row counts are the planner's estimates, -1 before the first ANALYZE.
SELECT partition.relname::text, partition.reltuples::float8, pg_total_relation_size(partition.oid)
FROM pg_inherits
JOIN pg_class AS partition ON partition.oid = inhrelid
WHERE inhparent = 'events_raw'::regclass
ORDER BY 1
