-- Gives these keys in the ledger of the totals the content and day that they have in the ledger of the events. The keys are
-- locked in one order, so that repairs of the two days of an event never deadlock.
WITH counted AS (SELECT key FROM agg_identity WHERE key = ANY($1) ORDER BY key FOR UPDATE)
UPDATE agg_identity
SET content = stored.content, day = stored.day
FROM counted
JOIN event_identity AS stored USING (key)
WHERE agg_identity.key = counted.key
