-- The key of an event in both ledgers: the first 16 bytes of SHA-256 over the length of source_id, source_id and event_id.
-- The services compute the same key in Rust.
--
-- STABLE since convert_to is: the planner inlines the function only if it is not less volatile than declared.
CREATE FUNCTION event_key(source_id text, event_id uuid) RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN encode(substring(sha256(int4send(octet_length(source_id)) || convert_to(source_id, 'UTF8')
                                   || uuid_send(event_id)) for 16), 'hex')::uuid;
