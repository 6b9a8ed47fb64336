DROP TABLE settings;
DROP TABLE consumer_progress;
