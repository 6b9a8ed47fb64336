-- Older programs know only separate services.
DO $$
BEGIN
    IF EXISTS (SELECT FROM settings WHERE name = 'mode' AND value <> 'separate') THEN
        RAISE EXCEPTION 'the database is not in the separate mode: run `netagg mode set separate` first'
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    DELETE FROM settings WHERE name = 'mode';
END
$$;
