INSERT INTO consumer_progress (service, topic, partition, done, last_timestamp)
SELECT $1, topic, partition, range_agg(int8range("from", "to")), max(last_timestamp)
FROM unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::timestamptz[])
    AS span (topic, partition, "from", "to", last_timestamp)
GROUP BY topic, partition
ORDER BY topic COLLATE "C", partition
ON CONFLICT (service, topic, partition) DO UPDATE SET
    done           = consumer_progress.done + EXCLUDED.done,
    last_timestamp = greatest(consumer_progress.last_timestamp, EXCLUDED.last_timestamp),
    updated_at     = now()
