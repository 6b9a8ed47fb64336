-- The aggregator gets its own ledger again, and the progress of the ingestor: all stored events are counted.
DROP VIEW agg_identity;
CREATE TABLE agg_identity (LIKE event_identity INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
INSERT INTO agg_identity (key, content, day) SELECT key, content, day FROM event_identity;
ALTER TABLE agg_identity ADD PRIMARY KEY (key);
ANALYZE agg_identity;
INSERT INTO consumer_progress
    (service, topic, partition, done, last_timestamp, accepted, duplicates, conflicts, invalid, vacant, redelivered, uncounted)
SELECT 'aggregator', topic, partition, done, last_timestamp,
       accepted, duplicates, conflicts, invalid, vacant, redelivered, uncounted
FROM consumer_progress
WHERE service = 'ingestor';
INSERT INTO completeness (service, topic, complete_through)
SELECT 'aggregator', topic, complete_through FROM completeness WHERE service = 'ingestor';
