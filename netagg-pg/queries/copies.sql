-- For each event asked for, how many stored copies there are; by the index of timelines, which is the only one.
SELECT count(stored.event_id)
FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::uuid[])
    WITH ORDINALITY AS asked (user_id, started_at, source_id, event_id, position)
LEFT JOIN events_raw AS stored
    ON stored.user_id = asked.user_id
    AND stored.started_at = asked.started_at
    AND stored.source_id = asked.source_id
    AND stored.event_id = asked.event_id
GROUP BY asked.position
ORDER BY asked.position
