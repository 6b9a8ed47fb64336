-- What became of the offsets of each partition; of the gaps between those done, the first 100.
SELECT service, topic, partition, done::text,
       lower(done), upper(done),
       (SELECT coalesce(sum(upper(range) - lower(range)), 0)::bigint FROM unnest(done) AS range),
       ARRAY(SELECT lower(gap) FROM unnest(gaps) AS gap ORDER BY gap LIMIT 100),
       ARRAY(SELECT upper(gap) FROM unnest(gaps) AS gap ORDER BY gap LIMIT 100),
       accepted, duplicates, conflicts, invalid, vacant, redelivered, uncounted
FROM consumer_progress
CROSS JOIN LATERAL (SELECT int8multirange(int8range(lower(done), upper(done))) - done AS gaps) AS between_done
ORDER BY service DESC, topic, partition
