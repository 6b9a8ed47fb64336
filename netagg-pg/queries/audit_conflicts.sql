-- The first conflicting duplicates of some days, and how many there are.
SELECT source_id, event_id, kept_content, kept_day, dropped_content, dropped_day, topic, partition, record_offset,
       noticed_at, count(*) OVER ()
FROM event_conflict
WHERE kept_day BETWEEN $1 AND $2 OR dropped_day BETWEEN $1 AND $2
ORDER BY noticed_at, key, dropped_content
LIMIT 100
