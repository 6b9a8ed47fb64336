DROP TABLE event_conflict;

ALTER TABLE consumer_progress
    DROP COLUMN accepted,
    DROP COLUMN duplicates,
    DROP COLUMN conflicts,
    DROP COLUMN invalid,
    DROP COLUMN vacant,
    DROP COLUMN redelivered,
    DROP COLUMN uncounted;
