-- The recorded instant of a service. In the combined mode, the ingestor also counts.
SELECT complete_through
FROM completeness
WHERE service = CASE WHEN $1 = 'aggregator'
                          AND EXISTS (SELECT FROM settings WHERE name = 'mode' AND value IN ('combined', 'to_separate'))
                     THEN 'ingestor' ELSE $1 END
