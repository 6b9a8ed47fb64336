-- As ledger_ahead.sql, the other way round.
SELECT stored.day, stored.key, stored.content, counted.day
FROM event_identity AS stored
LEFT JOIN LATERAL (SELECT day FROM agg_identity WHERE key = stored.key OFFSET 0) AS counted ON true
WHERE stored.day = ANY($1::date[])
  AND NOT EXISTS (
      SELECT
      FROM agg_identity AS same
      WHERE same.day = ANY($1::date[])
        AND (same.key, same.content, same.day) = (stored.key, stored.content, stored.day))
