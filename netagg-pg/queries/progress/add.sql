-- Adds spans to the progress, with one row for each partition. The part of a span that `done` already has was redelivered.
-- It is counted in `redelivered`, so that the counts of all deliveries add up. All expressions of the UPDATE see the old
-- row.
INSERT INTO consumer_progress
    (service, topic, partition, done, last_timestamp, accepted, duplicates, conflicts, invalid, vacant)
SELECT $1, topic, partition, range_agg(int8range("from", "to")), max(last_timestamp),
       sum(accepted), sum(duplicates), sum(conflicts), sum(invalid), sum("to" - "from" - records)
FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::timestamptz[],
            $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[])
    AS span (topic, partition, "from", "to", last_timestamp, records, accepted, duplicates, conflicts, invalid)
GROUP BY topic, partition
ORDER BY topic COLLATE "C", partition
ON CONFLICT (service, topic, partition) DO UPDATE SET
    done           = consumer_progress.done + EXCLUDED.done,
    last_timestamp = greatest(consumer_progress.last_timestamp, EXCLUDED.last_timestamp),
    accepted       = consumer_progress.accepted + EXCLUDED.accepted,
    duplicates     = consumer_progress.duplicates + EXCLUDED.duplicates,
    conflicts      = consumer_progress.conflicts + EXCLUDED.conflicts,
    invalid        = consumer_progress.invalid + EXCLUDED.invalid,
    vacant         = consumer_progress.vacant + EXCLUDED.vacant,
    redelivered    = consumer_progress.redelivered
                     + (SELECT coalesce(sum(upper(again) - lower(again)), 0)
                        FROM unnest(consumer_progress.done * EXCLUDED.done) AS again),
    updated_at     = EXCLUDED.updated_at
