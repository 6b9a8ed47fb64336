//! How far an audit has read.

/// How far an audit has read the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadProgress {
    /// The part that is being read, in words.
    pub what: &'static str,
    /// Bytes of tables read so far.
    pub done: u64,
    /// Bytes of tables to read, as far as known.
    pub total: u64,
}

/// A function that receives the progress.
pub type OnProgress<'a> = dyn Fn(ReadProgress) + Send + Sync + 'a;
