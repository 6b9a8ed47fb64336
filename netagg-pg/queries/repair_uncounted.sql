-- What the events from $1 up to $2 add to the totals that do not contain them. An event whose identity is lost has no
-- content hash; any other one would be as wrong.
SELECT key, coalesce(content, 0), (started_at AT TIME ZONE 'UTC')::date, type::text, coalesce(duration_sec, 0),
       bytes_up, bytes_down
FROM (SELECT *, encode(substring(sha256(int4send(octet_length(source_id)) || convert_to(source_id, 'UTF8')
                                        || uuid_send(event_id)) for 16), 'hex')::uuid AS key
      FROM events_raw) AS event
LEFT JOIN event_identity USING (key)
WHERE started_at >= $1
  AND started_at < $2
  AND (started_at AT TIME ZONE 'UTC')::date = ANY($3::date[])
  AND NOT EXISTS (SELECT FROM agg_identity WHERE agg_identity.key = event.key)
