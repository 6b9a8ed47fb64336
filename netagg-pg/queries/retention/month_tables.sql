-- The tables named after a month, in the schema of events_raw. is_detaching: a DETACH CONCURRENTLY was interrupted.
SELECT month.relname::text AS name,
       parent.inhrelid IS NOT NULL AS is_attached,
       coalesce(parent.inhdetachpending, false) AS is_detaching
FROM pg_class AS month
LEFT JOIN pg_inherits AS parent ON parent.inhrelid = month.oid AND parent.inhparent = 'events_raw'::regclass
WHERE month.relkind = 'r'
  AND month.relname ~ '^events_raw_[0-9]{4}_[0-9]{2}$'
  AND month.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'events_raw'::regclass)
