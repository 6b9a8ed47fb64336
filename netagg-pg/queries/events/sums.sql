-- The sums over the events of each period. The periods start at $2, the last period ends at $4. They are instants, so
-- that the server's time zones do not matter.
SELECT width_bucket(started_at, $2::timestamptz[]) - 1 AS period, type::text,
       count(*) AS count_events, coalesce(sum(duration_sec), 0)::bigint AS sum_duration,
       sum(bytes_up)::text AS sum_bytes_up, sum(bytes_down)::text AS sum_bytes_down
FROM events_raw
WHERE ($1::text IS NULL OR user_id = $1)
  AND started_at >= $3
  AND started_at < $4
  AND ($5::text IS NULL OR type = $5::text::event_type)
GROUP BY 1, events_raw.type
ORDER BY 1, events_raw.type
