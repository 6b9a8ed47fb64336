//! `COPY … FROM STDIN (FORMAT binary)`: the fastest way to write many rows.
//!
//! The format: <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4>.

use netagg_core::{Day, Timestamp};
use sqlx::PgConnection;

/// Rows are sent in pieces of about this size. The server works on one piece while the next piece is encoded, and memory
/// never holds a whole batch twice.
const PIECE: usize = 64 * 1024;

/// 2000-01-01, the instant from which PostgreSQL counts, in days and microseconds after 1970-01-01.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS * 86_400_000_000;

/// Sends `items` through `statement`, a binary `COPY`. `encode` writes the columns of a row, in the statement's order.
pub(crate) async fn copy_in<'a, T: Sync + 'a>(
    connection: &mut PgConnection,
    statement: &str,
    columns: i16,
    items: impl Iterator<Item = &'a T> + Send,
    encode: impl Fn(&mut Row<'_>, &T) + Send,
) -> Result<u64, sqlx::Error> {
    let mut copy = connection.copy_in_raw(statement).await?;
    let mut buffer = Vec::with_capacity(PIECE + PIECE / 4);
    // signature, flags, length of the header's extension
    buffer.extend_from_slice(b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0");
    for item in items {
        buffer.extend_from_slice(&columns.to_be_bytes());
        encode(&mut Row(&mut buffer), item);
        if buffer.len() >= PIECE {
            copy.send(buffer.as_slice()).await?;
            buffer.clear();
        }
    }
    buffer.extend_from_slice(&(-1_i16).to_be_bytes());
    copy.send(buffer.as_slice()).await?;
    copy.finish().await
}

/// The columns of a row, each prefixed by its length.
pub(crate) struct Row<'a>(&'a mut Vec<u8>);

impl Row<'_> {
    pub(crate) fn null(&mut self) {
        self.0.extend_from_slice(&(-1_i32).to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.len(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Writes a `text` or an enum.
    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    pub(crate) fn int4(&mut self, number: i32) {
        self.bytes(&number.to_be_bytes());
    }

    pub(crate) fn int8(&mut self, number: i64) {
        self.bytes(&number.to_be_bytes());
    }

    pub(crate) fn date(&mut self, day: Day) {
        // Days of the years 0001 to 9999 fit.
        self.int4((day.epoch_days() - EPOCH_DAYS) as i32);
    }

    pub(crate) fn timestamptz(&mut self, at: Timestamp) {
        self.int8(at.as_micros() - EPOCH_MICROS);
    }

    pub(crate) fn jsonb(&mut self, json: &str) {
        self.len(json.len() + 1);
        self.0.push(1); // the version of the format
        self.0.extend_from_slice(json.as_bytes());
    }

    /// Writes `value` with `write`, or null.
    pub(crate) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.null(),
        }
    }

    fn len(&mut self, len: usize) {
        // A record is at most a few MiB.
        self.0.extend_from_slice(&(len as i32).to_be_bytes());
    }
}
