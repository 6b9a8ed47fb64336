-- The transactions that began with the lock of a writer and are not over.
SELECT virtualtransaction
FROM pg_locks
WHERE locktype = 'advisory'
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (classid::bigint << 32 | objid::bigint) = 7954892278515302402
  AND objsubid = 1
  AND granted
