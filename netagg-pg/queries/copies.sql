-- For each event asked for that is stored, its position among those asked for, from 0, and how many copies there are; by
-- the index of timelines, which is the only one.
SELECT asked.position - 1, count(*)
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::uuid[])
    WITH ORDINALITY AS asked (user_id, started_at, source_id, event_id, position)
JOIN events_raw AS stored
    ON stored.user_id = asked.user_id
    AND stored.started_at = asked.started_at
    AND stored.source_id = asked.source_id
    AND stored.event_id = asked.event_id
GROUP BY asked.position
