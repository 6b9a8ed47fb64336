-- The first $3 conflicting duplicates of some days. Each row has the total number.
SELECT source_id, event_id, kept_content, kept_day, dropped_content, dropped_day, topic, partition, record_offset,
       noticed_at, count(*) OVER () AS total
FROM event_conflict
WHERE kept_day BETWEEN $1 AND $2 OR dropped_day BETWEEN $1 AND $2
ORDER BY noticed_at, key, dropped_content
LIMIT $3
