SELECT day, marked_at
FROM agg_dirty_day
WHERE day >= $1 AND day <= $2 AND ($3::date[] IS NULL OR day = ANY($3))
