SELECT day AS date, type::text, count_events, sum_duration, sum_bytes_up::text, sum_bytes_down::text
FROM agg_day
WHERE day >= $1
  AND day <= $2
  AND ($3::text IS NULL OR type = $3::text::event_type)
ORDER BY day, agg_day.type
