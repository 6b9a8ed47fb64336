-- Like counted_not_stored.sql, with the ledgers exchanged.
SELECT stored.key, stored.content, stored.day, counted.day AS other_day
FROM event_identity AS stored
LEFT JOIN LATERAL (SELECT day FROM agg_identity WHERE key = stored.key OFFSET 0) AS counted ON true
WHERE stored.day = ANY($1::date[])
  AND NOT EXISTS (
      SELECT
      FROM agg_identity AS same
      WHERE same.day = ANY($1::date[])
        AND (same.key, same.content, same.day) = (stored.key, stored.content, stored.day))
