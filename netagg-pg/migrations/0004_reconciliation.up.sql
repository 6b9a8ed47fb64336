-- What became of the records of each partition, counted in the transaction of the work:
--     offsets in done + redelivered = accepted + duplicates + conflicts + invalid + vacant + uncounted
-- A record lost or counted twice on its way through a service breaks the equation.
ALTER TABLE consumer_progress
    ADD COLUMN accepted    bigint NOT NULL DEFAULT 0, -- events that were new
    ADD COLUMN duplicates  bigint NOT NULL DEFAULT 0, -- events that were there before, with the same content
    ADD COLUMN conflicts   bigint NOT NULL DEFAULT 0, -- events that were there before, with other content
    ADD COLUMN invalid     bigint NOT NULL DEFAULT 0, -- records that hold no valid event
    ADD COLUMN vacant      bigint NOT NULL DEFAULT 0, -- offsets that hold no record
    ADD COLUMN redelivered bigint NOT NULL DEFAULT 0, -- offsets that were done before and came again
    ADD COLUMN uncounted   bigint NOT NULL DEFAULT 0; -- offsets done before this migration

UPDATE consumer_progress
SET uncounted = (SELECT coalesce(sum(upper(range) - lower(range)), 0) FROM unnest(done) AS range);

-- Events that came again with other content, each content once: what was dropped, where it came from, and what stayed.
CREATE TABLE event_conflict (
    key             uuid NOT NULL,
    source_id       text COLLATE "C" NOT NULL,
    event_id        uuid NOT NULL,
    kept_content    bigint NOT NULL,
    kept_day        date NOT NULL,
    dropped_content bigint NOT NULL,
    dropped_day     date NOT NULL,
    topic           text COLLATE "C",
    partition       int,
    record_offset   bigint,
    noticed_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key, dropped_content)
);
