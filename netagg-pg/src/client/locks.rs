//! The numbers of the advisory locks, which the server keeps in one space for each database. Migrations use the lock of sqlx,
//! whose number comes from the name of the database.
//!
//! The numbers are arbitrary and never change: programs of different versions exclude each other by these numbers.

/// Held by the transaction that makes a partition, so that two processes never make the same partition.
pub(crate) const PARTITION: i64 = 0x6e65_7461_6767_0001;

/// Shared by the transactions of all writers. Retention lists the holders of the lock, and waits until the older
/// transactions have ended.
pub(crate) const WRITERS: i64 = 0x6e65_7461_6767_0002;

/// Held by the session that drops months.
pub(crate) const RETENTION: i64 = 0x6e65_7461_6767_0003;

/// The first half of the locks of days under repair. The second half is the day, counted from 1970-01-01.
pub(crate) const REPAIRED_DAYS: i32 = 0x6e61_6764;
