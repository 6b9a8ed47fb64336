SELECT month AS day, type::text, count_events::text, sum_duration::text, sum_bytes_up::text, sum_bytes_down::text
FROM agg_month
WHERE month >= $1 AND month <= $2
