-- A page of a user's timeline after the position ($5, $6, $7), which may be null. `started_at <= $5` bounds the index
-- scan; the tie breakers are sorted only among the events of one instant. The outer query turns `meta` into text row by
-- row as the rows are sent, so unread rows cost nothing.
SELECT event_id, source_id, type::text, started_at, ended_at, duration_sec, bytes_up, bytes_down, meta::text
FROM (
    SELECT event_id, source_id, type, started_at, ended_at, duration_sec, bytes_up, bytes_down, meta
    FROM events_raw
    WHERE user_id = $1
      AND started_at >= $2
      AND started_at < $3
      AND ($4::text IS NULL OR type = $4::text::event_type)
      AND ($5::timestamptz IS NULL
           OR started_at <= $5 AND (started_at < $5 OR (source_id, event_id) > ($6::text COLLATE "C", $7::uuid)))
    ORDER BY started_at DESC, source_id, event_id
    LIMIT $8
) page
ORDER BY started_at DESC, source_id, event_id
