DROP TABLE event_identity;
DROP TABLE events_raw;
DROP TYPE event_type;
