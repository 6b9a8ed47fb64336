-- Inserts the new keys, and returns the other keys. The insert waits for a key that another transaction is inserting. All
-- writers insert keys in one order, so they never deadlock.
WITH entered AS (
    INSERT INTO event_identity (key, content, day)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::date[])
    ON CONFLICT DO NOTHING
    RETURNING key
)
SELECT asked.key
FROM unnest($1::uuid[]) AS asked (key)
WHERE NOT EXISTS (SELECT FROM entered WHERE entered.key = asked.key)
