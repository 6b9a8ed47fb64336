-- Like sums_stored.sql, but only over the events of some keys.
SELECT (started_at AT TIME ZONE 'UTC')::date AS day, type::text,
       count(*)::text AS count_events, coalesce(sum(duration_sec), 0)::text AS sum_duration,
       sum(bytes_up)::text AS sum_bytes_up, sum(bytes_down)::text AS sum_bytes_down
FROM events_raw
JOIN unnest($3::uuid[]) AS wanted (key)
    ON wanted.key = event_key(source_id, event_id)
WHERE started_at >= $1
  AND started_at < $2
GROUP BY 1, events_raw.type
