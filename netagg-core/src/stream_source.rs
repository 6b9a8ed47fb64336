//! A source that reads any stream.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::poll_fn;
use futures::stream::{BoxStream, Fuse, Stream, StreamExt, TryStreamExt};

use crate::error::{BoxError, Error};
use crate::ports::{Clock, EventSource, SourceEvent, SystemClock};
use crate::record::{PartitionId, Position, Record};

/// The largest number of records in a chunk.
const CHUNK: usize = 1_000;

/// The size in bytes from which a chunk takes no further record.
const CHUNK_BYTES: usize = 1 << 20;

/// An [`EventSource`] that reads a stream of records, or a stream of plain values such as the lines of a file.
///
/// The source needs no consumer group, and ends when the stream ends. It takes all records that are ready, up to 1,000 records
/// or about 1 MiB at a time.
///
/// The source keeps commits in memory, and [`committed`](Self::committed) returns them. If you read a stream again from its
/// beginning, all its records are delivered again, and their events are duplicates.
///
/// ```
/// use std::sync::Arc;
/// use futures::stream;
/// use netagg_core::memory::{MemoryDeadLetters, MemoryEventStore};
/// use netagg_core::{Ingestor, StreamSource};
/// use tokio_util::sync::CancellationToken;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let lines = stream::iter([Ok::<_, std::io::Error>("not an event"), Ok("{}")]);
/// let mut source = StreamSource::of_values("my lines", lines);
/// let dead_letters = Arc::new(MemoryDeadLetters::new());
/// let ingestor = Ingestor::new(Arc::new(MemoryEventStore::new()), dead_letters.clone());
/// ingestor.run(&mut source, CancellationToken::new()).await?;
/// assert_eq!(dead_letters.sent().len(), 2);
/// assert_eq!(source.committed()[0].next_offset, 2);
/// # Ok::<_, netagg_core::Error>(())
/// # }).unwrap();
/// ```
pub struct StreamSource {
    records: Fuse<BoxStream<'static, Result<Record, Error>>>,
    /// An error that followed the records of the last chunk.
    failure: Option<Error>,
    committed: Vec<Position>,
}

impl StreamSource {
    /// A source of `records`, which may belong to any number of partitions.
    ///
    /// The offsets of one partition must increase. Each record needs a timestamp, because the age limits of events refer to it.
    /// After a retryable error, the source continues with the stream. Any other error ends the service that reads the source.
    pub fn of_records(records: impl Stream<Item = Result<Record, Error>> + Send + 'static) -> Self {
        Self { records: records.boxed().fuse(), failure: None, committed: Vec::new() }
    }

    /// A source of `values`, as the records of partition 0 of the topic `name`. The offset of a record is its number in the
    /// stream, from 0. Its timestamp is the time when it was read. Errors of the stream are not retryable.
    ///
    /// The lines of any reader are such a stream: `futures::stream::iter(reader.split(b'\n'))`. This may block the thread. Use
    /// bytes, not text, as values. Then a line that is not UTF-8 becomes a dead letter. With text, the line would be an error of
    /// the stream, and would end the service.
    ///
    /// For an archive that you read more than once, use [`of_records`](Self::of_records) with the timestamps of the archive,
    /// because the age limits of events refer to the timestamps of the records.
    pub fn of_values<V, E>(name: impl Into<Arc<str>>, values: impl Stream<Item = Result<V, E>> + Send + 'static) -> Self
    where
        V: Into<Bytes>,
        E: Into<BoxError>,
    {
        let partition = PartitionId::new(name, 0);
        let mut next_offset = 0;
        let record = move |value| {
            let offset = next_offset;
            next_offset += 1;
            Record::new(partition.clone(), offset, value).with_timestamp(SystemClock.now())
        };
        Self::of_records(values.map_ok(record).map_err(|error| Error::internal("stream", error)))
    }

    /// The last committed position of each partition.
    pub fn committed(&self) -> &[Position] {
        &self.committed
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<SourceEvent, Error>> {
        if let Some(error) = self.failure.take() {
            return Poll::Ready(Err(error));
        }
        let first = match ready!(self.records.poll_next_unpin(context)) {
            Some(first) => first?,
            None => return Poll::Ready(Ok(SourceEvent::End)),
        };
        let mut bytes = first.size();
        let mut records = vec![first];
        while records.len() < CHUNK
            && bytes < CHUNK_BYTES
            && let Poll::Ready(Some(next)) = self.records.poll_next_unpin(context)
        {
            match next {
                Ok(record) => {
                    bytes += record.size();
                    records.push(record);
                }
                Err(error) => {
                    self.failure = Some(error);
                    break;
                }
            }
        }
        Poll::Ready(Ok(SourceEvent::Records(records)))
    }
}

#[async_trait]
impl EventSource for StreamSource {
    // Cancel safe: a poll that takes records from the stream returns them.
    async fn next(&mut self) -> Result<SourceEvent, Error> {
        poll_fn(|context| self.poll(context)).await
    }

    async fn commit(&mut self, positions: &[Position]) -> Result<(), Error> {
        for position in positions {
            match self.committed.iter_mut().find(|committed| committed.partition == position.partition) {
                Some(committed) => committed.next_offset = position.next_offset,
                None => self.committed.push(position.clone()),
            }
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl fmt::Debug for StreamSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSource").field("committed", &self.committed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::stream;

    use super::*;

    fn values(source: SourceEvent) -> Vec<Bytes> {
        let SourceEvent::Records(records) = source else { panic!("no records: {source:?}") };
        records.into_iter().filter_map(|record| record.value).collect()
    }

    #[tokio::test]
    async fn chunks_are_bounded_by_count_and_bytes() {
        let small = stream::iter((0..2_500).map(|_| Ok::<_, Error>("x")));
        let large = stream::iter((0..3).map(|_| Ok::<_, Error>(vec![b'x'; CHUNK_BYTES / 2])));
        for (mut source, expected) in [
            (StreamSource::of_values("small", small), vec![1_000, 1_000, 500]),
            (StreamSource::of_values("large", large), vec![2, 1]),
        ] {
            let mut sizes = Vec::new();
            while let SourceEvent::Records(records) = source.next().await.expect("records") {
                sizes.push(records.len());
            }
            assert_eq!(sizes, expected);
        }
    }

    #[tokio::test]
    async fn an_error_follows_the_records_before_it_and_reading_continues() {
        let record = |offset| Record::new(PartitionId::new("events", 0), offset, offset.to_string());
        let unavailable = Error::unavailable("stream", "unavailable");
        let mut source =
            StreamSource::of_records(stream::iter([Ok(record(0)), Ok(record(1)), Err(unavailable), Ok(record(2))]));
        assert_eq!(values(source.next().await.expect("records")), ["0", "1"]);
        assert!(source.next().await.expect_err("the stream's error").is_retryable());
        assert_eq!(values(source.next().await.expect("records")), ["2"]);
        assert!(matches!(source.next().await, Ok(SourceEvent::End)));
    }

    #[tokio::test]
    async fn ready_records_are_returned_at_once() {
        let lines = stream::iter([Ok::<_, Error>("one")]).chain(stream::pending());
        let mut source = StreamSource::of_values("lines", lines);
        assert_eq!(values(source.next().await.expect("records")), ["one"]);
        assert!(source.next().now_or_never().is_none());
    }
}
