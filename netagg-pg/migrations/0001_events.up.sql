-- In the order of the contract, which is the order of every listing by type.
CREATE TYPE event_type AS ENUM ('CALL_OUT', 'CALL_IN', 'SMS_SENT', 'SMS_RECEIVED', 'DATA');

-- Every event once. Months get their partition when the first event of theirs comes, or ahead of time; there is no
-- default partition, since rows would hide there and block DETACH CONCURRENTLY.
-- Text compares by bytes, as in the API's order of a user's events.
CREATE TABLE events_raw (
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
) PARTITION BY RANGE (started_at);

-- The one index: a user's timeline. Uniqueness is the ledger's, see below.
CREATE INDEX events_raw_timeline ON events_raw (user_id, started_at DESC);

-- Which events are in events_raw: a unique constraint there would have to contain started_at, and the same event could
-- be stored once for each. key is
--     encode(substring(sha256(int4send(octet_length(source_id)) || convert_to(source_id, 'UTF8')
--                             || uuid_send(event_id)) for 16), 'hex')::uuid
-- content tells a plain duplicate from a conflicting one; day is the UTC day of started_at.
CREATE TABLE event_identity (
    key     uuid PRIMARY KEY,
    content bigint NOT NULL,
    day     date NOT NULL
);
