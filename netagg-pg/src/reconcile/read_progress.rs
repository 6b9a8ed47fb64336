//! The progress of an audit.

/// How far an audit has read the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadProgress {
    /// The name of the part that is being read.
    pub what: &'static str,
    /// Bytes of tables read so far.
    pub done: u64,
    /// Bytes of tables to read, as far as known.
    pub total: u64,
}

/// A function that receives the progress.
pub type OnProgress<'a> = dyn Fn(ReadProgress) + Send + Sync + 'a;
