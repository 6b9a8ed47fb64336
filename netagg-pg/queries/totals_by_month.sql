-- As the view agg_month, from whole months' days: a condition on its month could not use the index on days.
SELECT date_trunc('month', day::timestamp)::date, type::text,
       sum(count_events)::bigint, sum(sum_duration)::bigint, sum(sum_bytes_up)::text, sum(sum_bytes_down)::text
FROM agg_day
WHERE day >= $1
  AND day <= $2
  AND ($3::text IS NULL OR type = $3::text::event_type)
GROUP BY 1, agg_day.type
ORDER BY 1, agg_day.type
