-- Up to which instant each service has done everything that its topic held then. Noted by the services themselves, beside
-- their work; see netagg-pg/queries/completeness_note.sql.
CREATE TABLE completeness (
    service          text COLLATE "C" PRIMARY KEY,
    topic            text COLLATE "C" NOT NULL,
    complete_through timestamptz NOT NULL
);
