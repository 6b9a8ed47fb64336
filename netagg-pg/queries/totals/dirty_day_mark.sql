-- DO UPDATE, not DO NOTHING: a repair that is about to remove an older mark must see this mark, or wait for it.
INSERT INTO agg_dirty_day (day)
SELECT * FROM unnest($1::date[])
ON CONFLICT (day) DO UPDATE SET marked_at = clock_timestamp()
