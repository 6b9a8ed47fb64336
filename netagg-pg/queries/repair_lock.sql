-- Takes the locks of those days that nobody repairs, for the session.
SELECT day
FROM unnest($2::date[]) AS day
WHERE pg_try_advisory_lock($1, day - date '1970-01-01')
