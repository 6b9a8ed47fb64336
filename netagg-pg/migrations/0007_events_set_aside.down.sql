DO $$
BEGIN
    IF EXISTS (SELECT FROM events_set_aside) THEN
        RAISE EXCEPTION 'events_set_aside has events that are stored nowhere else: mend the partitions of events_raw first'
            USING ERRCODE = '55000';
    END IF;
END
$$;

DROP TABLE events_set_aside;
