-- Which services write to this database:
--     separate  the ingestor stores events, the aggregator counts them, each with its own ledger of identities
--     combined  the ingestor stores and counts events in one transaction; agg_identity is a view of event_identity
-- While `netagg mode set` works, the value is to_separate or to_combined, and no service writes. A database without this
-- setting is new: the first service records its mode.
INSERT INTO settings (name, value)
SELECT 'mode', 'separate' WHERE EXISTS (SELECT FROM consumer_progress);
