-- The bounds of the partitions of events_raw: from the first time up to the second, exclusive. A default partition covers
-- every time. Bounds outside the times of valid events are clipped.
SELECT CASE WHEN bound ~ 'FROM \(''' THEN greatest(substring(bound FROM 'FROM \(''([^'']*)''\)')::timestamptz, first)
            ELSE first END,
       CASE WHEN bound ~ 'TO \(''' THEN least(substring(bound FROM 'TO \(''([^'']*)''\)')::timestamptz, last)
            ELSE last END
FROM (SELECT pg_get_expr(partition.relpartbound, partition.oid) AS bound,
             '0001-01-01 00:00:00+00'::timestamptz AS first, '10000-01-01 00:00:00+00'::timestamptz AS last
      FROM pg_inherits
      JOIN pg_class AS partition ON partition.oid = inhrelid
      WHERE inhparent = 'events_raw'::regclass AND NOT inhdetachpending) AS partition
ORDER BY 1
