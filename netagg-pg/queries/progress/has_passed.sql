-- Whether a service has processed all of these offsets.
SELECT coalesce(bool_and(coalesce(progress.done @> wanted.done, false)), true)
FROM unnest($2::text[], $3::int[], $4::text[]::int8multirange[]) AS wanted (topic, partition, done)
LEFT JOIN consumer_progress AS progress
    ON progress.service = $1 AND progress.topic = wanted.topic AND progress.partition = wanted.partition
