-- The identities of some days in the ledger of the totals that the ledger of the events lacks, or has with another content
-- or day; other_day is the day in the ledger of the events. First the ledgers are compared day by day, which takes little
-- memory. Only the identities that differ are looked up by key.
SELECT counted.key, counted.content, counted.day, stored.day AS other_day
FROM agg_identity AS counted
LEFT JOIN LATERAL (SELECT day FROM event_identity WHERE key = counted.key OFFSET 0) AS stored ON true
WHERE counted.day = ANY($1::date[])
  AND NOT EXISTS (
      SELECT
      FROM event_identity AS same
      WHERE same.day = ANY($1::date[])
        AND (same.key, same.content, same.day) = (counted.key, counted.content, counted.day))
