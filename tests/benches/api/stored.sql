-- $1 events: a tenth of one user, a tenth of 100 users, the rest of 80,000 users; over 28 days that ended yesterday.
DO $$
BEGIN
    FOR ahead IN 0..2 LOOP
        EXECUTE format(
            'CREATE TABLE IF NOT EXISTS %I PARTITION OF events_raw FOR VALUES FROM (%L) TO (%L)',
            'events_raw_' || to_char(date_trunc('month', now() AT TIME ZONE 'UTC') - ahead * interval '1 month', 'YYYY_MM'),
            (date_trunc('month', now() AT TIME ZONE 'UTC') - ahead * interval '1 month') AT TIME ZONE 'UTC',
            (date_trunc('month', now() AT TIME ZONE 'UTC') - (ahead - 1) * interval '1 month') AT TIME ZONE 'UTC');
    END LOOP;
END $$;

INSERT INTO events_raw (source_id, event_id, user_id, type, started_at, duration_sec, bytes_up, bytes_down, meta)
SELECT 'provider-' || number % 10,
       gen_random_uuid(),
       CASE number % 10
           WHEN 0 THEN 'heavy'
           WHEN 1 THEN 'deep-' || number / 10 % 100
           ELSE 'user-' || (random() * 79999)::int
       END,
       (enum_range(NULL::event_type))[1 + number % 5],
       date_trunc('day', now()) - number * (interval '28 days' / EVENTS),
       number % 3600, number % 1000000, number % 2000000,
       '{"cell": "A1"}'
FROM generate_series(1, EVENTS) AS number;

INSERT INTO agg_day (day, type, count_events, sum_duration, sum_bytes_up, sum_bytes_down)
SELECT (started_at AT TIME ZONE 'UTC')::date, type, count(*), coalesce(sum(duration_sec), 0), sum(bytes_up), sum(bytes_down)
FROM events_raw
GROUP BY 1, 2;

VACUUM ANALYZE;
