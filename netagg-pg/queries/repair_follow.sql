-- Makes the ledger of the totals say of these keys what the ledger of the events says. In one order, so that two repairs
-- of one event's two days wait for each other and never deadlock.
WITH counted AS (SELECT key FROM agg_identity WHERE key = ANY($1) ORDER BY key FOR UPDATE)
UPDATE agg_identity
SET content = stored.content, day = stored.day
FROM counted
JOIN event_identity AS stored USING (key)
WHERE agg_identity.key = counted.key
