SELECT id, digest, name, scopes, user_id, rate_limit, created_at, expires_at, revoked_at
FROM api_key
ORDER BY created_at, id
