-- What each service has durably done of each partition, written with the work itself. For audit, rebuild and freshness;
-- never a filter: the ledgers alone decide what is new. Batches commit out of order, so it is a set of offsets; its
-- ranges join as gaps close.
CREATE TABLE consumer_progress (
    service        text COLLATE "C" NOT NULL,
    topic          text COLLATE "C" NOT NULL,
    partition      int NOT NULL,
    done           int8multirange NOT NULL,
    last_timestamp timestamptz,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (service, topic, partition)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

-- What all programs on this database have to agree on.
CREATE TABLE settings (
    name       text COLLATE "C" PRIMARY KEY,
    value      text NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
