-- Locks the days that no other session repairs, until the session ends. Returns them.
SELECT day
FROM unnest($2::date[]) AS day
WHERE pg_try_advisory_lock($1, day - date '1970-01-01')
