-- Sums over the events stored from $1 up to $2, by UTC day and type.
SELECT (started_at AT TIME ZONE 'UTC')::date AS day, type::text,
       count(*)::text AS count_events, coalesce(sum(duration_sec), 0)::text AS sum_duration,
       sum(bytes_up)::text AS sum_bytes_up, sum(bytes_down)::text AS sum_bytes_down
FROM events_raw
WHERE started_at >= $1
  AND started_at < $2
  AND ($3::date[] IS NULL OR (started_at AT TIME ZONE 'UTC')::date = ANY($3))
GROUP BY 1, events_raw.type
