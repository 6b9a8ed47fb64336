-- A page of a user's timeline after the position ($5, $6, $7), which may be null. `started_at <= $5` bounds the index
-- scan; the tie breakers are sorted among the events of one instant only. `meta` is turned into text outside, row by row
-- as it is sent, and never for rows that nobody reads.
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
