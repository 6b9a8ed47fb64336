-- Enters the keys that are new, and answers those that are not. A key that another transaction is entering is waited
-- for: they come in the order in which all writers enter them, so that nobody deadlocks.
WITH entered AS (
    INSERT INTO agg_identity (key, content, day)
    SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::date[])
    ON CONFLICT DO NOTHING
    RETURNING key
)
SELECT asked.key
FROM unnest($1::uuid[]) AS asked (key)
WHERE NOT EXISTS (SELECT FROM entered WHERE entered.key = asked.key)
