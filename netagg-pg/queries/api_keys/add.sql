INSERT INTO api_key (id, digest, name, scopes, user_id, rate_limit, created_at, expires_at, revoked_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (id) DO NOTHING
