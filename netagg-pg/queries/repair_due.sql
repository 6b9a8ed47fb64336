-- Dirty days, the oldest marks first; none of a dropped month, whose events are gone.
SELECT day
FROM agg_dirty_day
WHERE day >= coalesce((SELECT (value || '-01')::date + interval '1 month' FROM settings WHERE name = 'dropped_through'),
                      '-infinity')
ORDER BY marked_at
