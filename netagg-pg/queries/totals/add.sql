-- Adds sums to totals. The rows come in the order of the primary key, so that concurrent writers never deadlock.
INSERT INTO agg_day (day, type, count_events, sum_duration, sum_bytes_up, sum_bytes_down)
SELECT * FROM unnest($1::date[], $2::text[]::event_type[], $3::bigint[], $4::bigint[], $5::text[]::numeric[], $6::text[]::numeric[])
ON CONFLICT (day, type) DO UPDATE SET
    count_events   = agg_day.count_events + EXCLUDED.count_events,
    sum_duration   = agg_day.sum_duration + EXCLUDED.sum_duration,
    sum_bytes_up   = agg_day.sum_bytes_up + EXCLUDED.sum_bytes_up,
    sum_bytes_down = agg_day.sum_bytes_down + EXCLUDED.sum_bytes_down,
    updated_at     = EXCLUDED.updated_at
