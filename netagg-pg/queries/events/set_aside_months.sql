-- The months of the events that are set aside, and how many events each month has.
SELECT date_trunc('month', started_at AT TIME ZONE 'UTC')::date AS month, count(*)
FROM events_set_aside
GROUP BY 1
ORDER BY 1
