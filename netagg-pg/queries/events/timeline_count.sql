SELECT count(*)
FROM events_raw
WHERE user_id = $1
  AND started_at >= $2
  AND started_at < $3
  AND ($4::text IS NULL OR type = $4::text::event_type)
