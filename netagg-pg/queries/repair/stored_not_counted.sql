-- The events from $1 up to $2 that the totals do not contain. An event whose identity is lost has no content hash: 0 stands
-- for it, because any other value would be equally wrong.
SELECT key, coalesce(content, 0) AS content, (started_at AT TIME ZONE 'UTC')::date AS day, type::text,
       coalesce(duration_sec, 0) AS duration_sec, bytes_up, bytes_down
FROM (SELECT *, event_key(source_id, event_id) AS key FROM events_raw) AS event
LEFT JOIN event_identity USING (key)
WHERE started_at >= $1
  AND started_at < $2
  AND (started_at AT TIME ZONE 'UTC')::date = ANY($3::date[])
  AND NOT EXISTS (SELECT FROM agg_identity WHERE agg_identity.key = event.key)
