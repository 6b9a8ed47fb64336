-- Moves some of the events that are set aside and lie between two times to events_raw; returns their days, each once.
-- Another process may be moving others.
WITH chosen AS MATERIALIZED (
    SELECT ctid FROM events_set_aside
    WHERE started_at >= $1 AND started_at < $2
    LIMIT $3 FOR UPDATE SKIP LOCKED
), moved AS (
    DELETE FROM events_set_aside WHERE ctid IN (SELECT ctid FROM chosen)
    RETURNING source_id, event_id, user_id, type, started_at, ended_at, duration_sec, bytes_up, bytes_down, meta, created_at
), stored AS (
    INSERT INTO events_raw
        (source_id, event_id, user_id, type, started_at, ended_at, duration_sec, bytes_up, bytes_down, meta, created_at)
    SELECT * FROM moved
)
SELECT (started_at AT TIME ZONE 'UTC')::date AS day, count(*) FROM moved GROUP BY 1
