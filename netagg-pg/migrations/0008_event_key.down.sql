DROP FUNCTION event_key(text, uuid);
