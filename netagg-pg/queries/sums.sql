-- The sums over the events of each period, whose starts are $2 and whose last end is $4. The periods are given as
-- instants, so that the zones the server knows do not matter.
SELECT width_bucket(started_at, $2::timestamptz[]) - 1, type::text,
       count(*), coalesce(sum(duration_sec), 0)::bigint, sum(bytes_up)::text, sum(bytes_down)::text
FROM events_raw
WHERE ($1::text IS NULL OR user_id = $1)
  AND started_at >= $3
  AND started_at < $4
  AND ($5::text IS NULL OR type = $5::text::event_type)
GROUP BY 1, events_raw.type
ORDER BY 1, events_raw.type
