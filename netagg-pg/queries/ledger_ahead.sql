-- What the ledger of the totals has of some days and the ledger of the events has not, or has with another content or day;
-- then that day. The ledgers are compared day by day first, which takes little memory; what is left is looked up by key.
SELECT counted.day, counted.key, counted.content, stored.day
FROM agg_identity AS counted
LEFT JOIN LATERAL (SELECT day FROM event_identity WHERE key = counted.key OFFSET 0) AS stored ON true
WHERE counted.day = ANY($1::date[])
  AND NOT EXISTS (
      SELECT
      FROM event_identity AS same
      WHERE same.day = ANY($1::date[])
        AND (same.key, same.content, same.day) = (counted.key, counted.content, counted.day))
