-- Tables in the schema of events_raw named after a month: whether they are partitions, and whether they are about to be
-- none (a DETACH CONCURRENTLY that was interrupted).
SELECT month.relname::text, parent.inhrelid IS NOT NULL, coalesce(parent.inhdetachpending, false)
FROM pg_class AS month
LEFT JOIN pg_inherits AS parent ON parent.inhrelid = month.oid AND parent.inhparent = 'events_raw'::regclass
WHERE month.relkind = 'r'
  AND month.relname ~ '^events_raw_[0-9]{4}_[0-9]{2}$'
  AND month.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events_raw'::regclass)
