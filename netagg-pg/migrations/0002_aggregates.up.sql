-- Which events the totals contain; as event_identity, and apart from it, so that either service may lag or be rebuilt.
CREATE TABLE agg_identity (
    key     uuid PRIMARY KEY,
    content bigint NOT NULL,
    day     date NOT NULL
);

-- Totals of UTC days. Few rows, updated by every batch: half of each page stays free, and no index covers a changed
-- column, so that updates stay within their page (HOT). Byte sums exceed bigint when two events of 2^63-1 bytes meet.
CREATE TABLE agg_day (
    day            date NOT NULL,
    type           event_type NOT NULL,
    count_events   bigint NOT NULL,
    sum_duration   bigint NOT NULL,
    sum_bytes_up   numeric NOT NULL,
    sum_bytes_down numeric NOT NULL,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, type)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

-- A view, so that a month is the sum of its days at any time. At most 155 rows make a month.
CREATE VIEW agg_month AS
SELECT date_trunc('month', day::timestamp)::date AS month,
       type,
       sum(count_events)::bigint AS count_events,
       sum(sum_duration)::bigint AS sum_duration,
       sum(sum_bytes_up) AS sum_bytes_up,
       sum(sum_bytes_down) AS sum_bytes_down,
       max(updated_at) AS updated_at
FROM agg_day
GROUP BY 1, 2;

-- Days whose totals are to be recomputed from events_raw: an event of theirs came with two contents, and the two ledgers
-- may have kept different ones. marked_at changes with every mark, so that a repair can tell a mark it has answered from
-- one made meanwhile.
CREATE TABLE agg_dirty_day (
    day       date PRIMARY KEY,
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
