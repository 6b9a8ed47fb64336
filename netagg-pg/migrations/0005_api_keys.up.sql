-- The keys that callers of the API show, without their secrets.
CREATE TABLE api_key (
    id         text COLLATE "C" PRIMARY KEY,
    digest     bytea NOT NULL CHECK (octet_length(digest) = 32), -- SHA-256 of the secret
    name       text NOT NULL,
    scopes     text[] NOT NULL,
    user_id    text COLLATE "C", -- the only user it may ask about
    rate_limit text,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz
);
