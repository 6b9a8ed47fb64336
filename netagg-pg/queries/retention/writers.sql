-- The running transactions that hold the lock of writers, $1.
SELECT virtualtransaction
FROM pg_locks
WHERE locktype = 'advisory'
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (classid::bigint << 32 | objid::bigint) = $1
  AND objsubid = 1
  AND granted
