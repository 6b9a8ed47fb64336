SELECT day, type::text, count_events::text, sum_duration::text, sum_bytes_up::text, sum_bytes_down::text
FROM agg_day
WHERE day >= $1 AND day <= $2 AND ($3::date[] IS NULL OR day = ANY($3))
