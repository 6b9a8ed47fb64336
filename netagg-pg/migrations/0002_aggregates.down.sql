DROP TABLE agg_dirty_day;
DROP VIEW agg_month;
DROP TABLE agg_day;
DROP TABLE agg_identity;
