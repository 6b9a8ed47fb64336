-- Events that are accepted and have no place in events_raw, since the partition of their month cannot be made: an operator
-- has detached it, or another partition overlaps the month. Their identities are in event_identity. The ingestor moves
-- them to events_raw as soon as the partition can be made.
CREATE TABLE events_set_aside (
    source_id    text COLLATE "C" NOT NULL,
    event_id     uuid NOT NULL,
    user_id      text COLLATE "C" NOT NULL,
    type         event_type NOT NULL,
    started_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    duration_sec int,
    bytes_up     bigint NOT NULL,
    bytes_down   bigint NOT NULL,
    meta         jsonb,
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX events_set_aside_started_at ON events_set_aside (started_at);
