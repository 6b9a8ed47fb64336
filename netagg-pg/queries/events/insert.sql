-- Stores the events of a small batch in one message. COPY would need several messages.
INSERT INTO events_raw
    (source_id, event_id, user_id, type, started_at, ended_at, duration_sec, bytes_up, bytes_down, meta)
SELECT source_id, event_id, user_id, type::event_type, started_at, ended_at, duration_sec, bytes_up, bytes_down, meta::jsonb
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::int[],
            $8::bigint[], $9::bigint[], $10::text[])
    AS event (source_id, event_id, user_id, type, started_at, ended_at, duration_sec, bytes_up, bytes_down, meta)
