-- The processed offsets of each partition, the first 100 gaps between them, and the outcomes of their records.
SELECT service, topic, partition, done::text AS done_ranges,
       lower(done) AS first, upper(done) AS next,
       (SELECT coalesce(sum(upper(range) - lower(range)), 0)::bigint FROM unnest(done) AS range) AS done,
       ARRAY(SELECT lower(gap) FROM unnest(gaps) AS gap ORDER BY gap LIMIT 100) AS gap_starts,
       ARRAY(SELECT upper(gap) FROM unnest(gaps) AS gap ORDER BY gap LIMIT 100) AS gap_ends,
       accepted, duplicates, conflicts, invalid, vacant, redelivered, uncounted
FROM consumer_progress
CROSS JOIN LATERAL (SELECT int8multirange(int8range(lower(done), upper(done))) - done AS gaps) AS between_done
ORDER BY service DESC, topic, partition
