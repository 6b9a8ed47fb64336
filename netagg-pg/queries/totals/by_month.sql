-- Like the view agg_month, but computed from the days of whole months: a condition on the view's month could not use the
-- index on days.
SELECT date_trunc('month', day::timestamp)::date AS date, type::text,
       sum(count_events)::bigint AS count_events, sum(sum_duration)::bigint AS sum_duration,
       sum(sum_bytes_up)::text AS sum_bytes_up, sum(sum_bytes_down)::text AS sum_bytes_down
FROM agg_day
WHERE day >= $1
  AND day <= $2
  AND ($3::text IS NULL OR type = $3::text::event_type)
GROUP BY 1, agg_day.type
ORDER BY 1, agg_day.type
