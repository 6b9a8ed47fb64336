-- The days from $1 to $2 that have events, totals or identities. $3 is the first instant of these days, and $4 is the first
-- instant after them.
SELECT day FROM agg_day WHERE day >= $1 AND day <= $2 GROUP BY day
UNION
SELECT day FROM event_identity WHERE day >= $1 AND day <= $2 GROUP BY day
UNION
SELECT day FROM agg_identity WHERE day >= $1 AND day <= $2 GROUP BY day
UNION
SELECT (started_at AT TIME ZONE 'UTC')::date FROM events_raw WHERE started_at >= $3 AND started_at < $4 GROUP BY 1
ORDER BY day
