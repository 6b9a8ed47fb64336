-- How many copies of each given event are stored, by the position of the event, from 0. Events without a copy are left out. The
-- join uses the index of timelines, which is the only index.
SELECT asked.position - 1, count(*)
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::uuid[])
    WITH ORDINALITY AS asked (user_id, started_at, source_id, event_id, position)
JOIN events_raw AS stored
    ON stored.user_id = asked.user_id
    AND stored.started_at = asked.started_at
    AND stored.source_id = asked.source_id
    AND stored.event_id = asked.event_id
GROUP BY asked.position
