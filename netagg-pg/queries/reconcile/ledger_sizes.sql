-- By day, how many identities each ledger has, and whether both have the same identities with the same contents. Sums of
-- two 64-bit hashes over key and content show this. A join would need as much memory or disk as the ledgers.
SELECT day, coalesce(stored.identities, 0) AS stored, coalesce(counted.identities, 0) AS counted,
       (stored.identities, stored.one_sum, stored.other_sum)
       IS NOT DISTINCT FROM (counted.identities, counted.one_sum, counted.other_sum) AS are_equal
FROM (SELECT day, count(*) AS identities,
             sum(uuid_hash_extended(key, content)) AS one_sum, sum(uuid_hash_extended(key, content # 1)) AS other_sum
      FROM event_identity
      WHERE day >= $1 AND day <= $2 AND ($3::date[] IS NULL OR day = ANY($3))
      GROUP BY day) AS stored
FULL JOIN
     (SELECT day, count(*) AS identities,
             sum(uuid_hash_extended(key, content)) AS one_sum, sum(uuid_hash_extended(key, content # 1)) AS other_sum
      FROM agg_identity
      WHERE day >= $1 AND day <= $2 AND ($3::date[] IS NULL OR day = ANY($3))
      GROUP BY day) AS counted
USING (day)
