-- Dirty days, the oldest marks first. Days of dropped months, whose events are gone, are left out.
SELECT day
FROM agg_dirty_day
WHERE day >= coalesce((SELECT (value || '-01')::date + interval '1 month' FROM settings WHERE name = 'dropped_through'),
                      '-infinity')
ORDER BY marked_at
