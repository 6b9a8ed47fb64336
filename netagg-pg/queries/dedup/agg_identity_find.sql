-- The rows of the ledger with these keys. OFFSET 0 forces a lookup by index, key by key. Otherwise the planner would read a
-- ledger of a million rows from end to end for a batch of thousands.
SELECT known.key, known.content, known.day
FROM unnest($1::uuid[]) AS asked (key)
CROSS JOIN LATERAL (SELECT key, content, day FROM agg_identity WHERE key = asked.key OFFSET 0) AS known
