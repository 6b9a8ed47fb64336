-- Removes marks that have not been renewed since the repair read them. A renewed mark stays for the next repair.
DELETE FROM agg_dirty_day
USING unnest($1::date[], $2::timestamptz[]) AS seen (day, marked_at)
WHERE agg_dirty_day.day = seen.day AND agg_dirty_day.marked_at = seen.marked_at
