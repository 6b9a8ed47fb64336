DELETE FROM agg_identity
WHERE key = ANY($1) AND NOT EXISTS (SELECT FROM event_identity WHERE event_identity.key = agg_identity.key)
