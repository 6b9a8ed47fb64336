-- The tables of netagg that an extension (Citus) has distributed over other servers. The extension owns the catalogue table.
SELECT string_agg(class.relname, ', ' ORDER BY class.relname)
FROM pg_dist_partition AS distributed
JOIN pg_class AS class ON class.oid = distributed.logicalrelid::oid
WHERE class.oid IN (to_regclass('events_raw'), to_regclass('events_set_aside'), to_regclass('event_identity'),
                    to_regclass('event_conflict'), to_regclass('agg_identity'), to_regclass('agg_day'),
                    to_regclass('agg_dirty_day'), to_regclass('consumer_progress'), to_regclass('completeness'),
                    to_regclass('settings'))
