-- Records dropped copies. A content that was dropped before is not recorded again.
INSERT INTO event_conflict
    (key, source_id, event_id, kept_content, kept_day, dropped_content, dropped_day, topic, partition, record_offset)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::date[], $6::bigint[], $7::date[],
                     $8::text[], $9::int[], $10::bigint[])
ON CONFLICT DO NOTHING
