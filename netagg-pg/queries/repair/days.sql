-- The days from $1 to $2, which is from $3 up to $4, that have events, totals or identities.
SELECT day FROM agg_day WHERE day >= $1 AND day <= $2 GROUP BY day
UNION
SELECT day FROM event_identity WHERE day >= $1 AND day <= $2 GROUP BY day
UNION
SELECT day FROM agg_identity WHERE day >= $1 AND day <= $2 GROUP BY day
UNION
SELECT (started_at AT TIME ZONE 'UTC')::date FROM events_raw WHERE started_at >= $3 AND started_at < $4 GROUP BY 1
ORDER BY day
