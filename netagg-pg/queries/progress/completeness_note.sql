-- Records that a service has processed all records that its topic held at an instant. The service must have durably
-- processed, without a gap, all offsets below the offsets that its group has committed. A database restored from a backup
-- lacks some of these offsets.
INSERT INTO completeness (service, topic, complete_through)
SELECT $1, $2, $3
WHERE NOT EXISTS (
    SELECT FROM unnest($4::int[], $5::bigint[]) AS committed (partition, next_offset)
    LEFT JOIN consumer_progress AS progress
        ON progress.service = $1 AND progress.topic = $2 AND progress.partition = committed.partition
    WHERE NOT coalesce(
        progress.done @> int8range(least(lower(progress.done), next_offset), next_offset), next_offset = 0))
ON CONFLICT (service) DO UPDATE SET
    topic            = EXCLUDED.topic,
    complete_through = CASE WHEN completeness.topic = EXCLUDED.topic
                            THEN greatest(completeness.complete_through, EXCLUDED.complete_through)
                            ELSE EXCLUDED.complete_through END
