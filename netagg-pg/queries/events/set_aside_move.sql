-- Moves up to $3 events that are set aside, from $1 up to $2, to events_raw. Returns how many events each day got. Another
-- process may move other events at the same time.
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
