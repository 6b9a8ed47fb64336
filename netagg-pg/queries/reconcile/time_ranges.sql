-- The partitions that may have events from $1 up to $2, clipped to these times, with their sizes in bytes. A bound is null
-- if the partition has no such bound, for example a default partition.
SELECT CASE WHEN from_at IS NOT NULL THEN greatest(from_at, $1) END AS from_at,
       CASE WHEN until IS NOT NULL THEN least(until, $2) END AS until,
       pg_relation_size(partition) AS bytes
FROM (SELECT inhrelid AS partition,
             substring(bound FROM $$FROM \('([^']+)'\)$$)::timestamptz AS from_at,
             substring(bound FROM $$TO \('([^']+)'\)$$)::timestamptz AS until
      FROM pg_inherits
      JOIN pg_class ON pg_class.oid = inhrelid
      CROSS JOIN LATERAL pg_get_expr(relpartbound, pg_class.oid) AS bound
      WHERE inhparent = 'events_raw'::regclass) AS partitions
WHERE (from_at < $2) IS NOT FALSE AND (until > $1) IS NOT FALSE
ORDER BY 1
