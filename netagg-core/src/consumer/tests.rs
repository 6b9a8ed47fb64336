//! Tests of the runtime of consumers, on a paused clock. Simulated hours take no real time, and every instant is exact.

mod schedules;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::record::Position;
use crate::retry_policy::RetryPolicy;

const HOUR: Duration = Duration::from_secs(3_600);
const NONE: [i64; 0] = [];

/// A consumer of one partition. The test controls its source and its sink.
struct Stage {
    /// The events that the source returns next. The source ends when this is dropped.
    events: Option<mpsc::UnboundedSender<Result<SourceEvent, Error>>>,
    /// The number of delivered records, the commits, and the number of calls of `close`.
    source: Arc<Seen>,
    /// The batches that the consumer passed to its sink.
    batches: mpsc::UnboundedReceiver<Taken>,
    shutdown: CancellationToken,
    run: JoinHandle<Result<(), Error>>,
}

#[derive(Debug, Default)]
struct Seen {
    delivered: AtomicUsize,
    commits: Mutex<Vec<i64>>,
    closed: AtomicUsize,
    /// Whether the close fails to confirm the last commits.
    closes_in_doubt: AtomicBool,
}

impl Seen {
    fn committed(&self) -> Vec<i64> {
        self.commits.lock().expect("not poisoned").clone()
    }
}

#[derive(Debug)]
struct PlayedSource {
    events: mpsc::UnboundedReceiver<Result<SourceEvent, Error>>,
    seen: Arc<Seen>,
}

#[async_trait]
impl EventSource for PlayedSource {
    async fn next(&mut self) -> Result<SourceEvent, Error> {
        let event = self.events.recv().await.unwrap_or(Ok(SourceEvent::End))?;
        if let SourceEvent::Records(records) = &event {
            self.seen.delivered.fetch_add(records.len(), SeqCst);
        }
        Ok(event)
    }

    async fn commit(&mut self, positions: &[Position]) -> Result<(), Error> {
        assert_eq!(self.seen.closed.load(SeqCst), 0, "a commit after the close");
        let mut commits = self.seen.commits.lock().expect("not poisoned");
        commits.extend(positions.iter().map(|position| position.next_offset));
        Ok(())
    }

    async fn close(&mut self) -> Result<(), Error> {
        self.seen.closed.fetch_add(1, SeqCst);
        if self.seen.closes_in_doubt.load(SeqCst) { Err(unavailable()) } else { Ok(()) }
    }
}

/// A batch that the sink has received. The batch is done when the test sends its result.
#[derive(Debug)]
struct Taken {
    offsets: Vec<i64>,
    spans: Vec<(i64, i64)>,
    at: Instant,
    result: oneshot::Sender<Result<(), Error>>,
}

impl Taken {
    fn done(self) {
        self.result.send(Ok(())).expect("the sink waits");
    }
}

#[derive(Debug)]
struct PlayedSink(mpsc::UnboundedSender<Taken>);

#[async_trait]
impl Sink for PlayedSink {
    async fn process(&self, records: Vec<Record>, spans: Vec<Span>, retrier: &Retrier) -> Result<(), Aborted> {
        let (result, receiver) = oneshot::channel();
        let taken = Taken {
            offsets: records.iter().map(|record| record.offset).collect(),
            spans: spans.iter().map(|span| (span.from, span.to)).collect(),
            at: Instant::now(),
            result,
        };
        self.0.send(taken).expect("the test listens");
        match receiver.await.expect("the test sends a result") {
            Ok(()) => Ok(()),
            // The store stays unavailable.
            Err(error) if error.is_retryable() => retrier.run(|| async { Err(unavailable()) }).await,
            Err(error) => Err(Aborted::Failed(error)),
        }
    }
}

fn unavailable() -> Error {
    Error::unavailable("store", "unavailable")
}

fn record(offset: i64) -> Record {
    Record::new(PartitionId::new("events", 0), offset, vec![b'x'; 100])
}

fn records(offsets: std::ops::Range<i64>) -> Result<SourceEvent, Error> {
    Ok(SourceEvent::Records(offsets.map(record).collect()))
}

impl Stage {
    fn new(config: ConsumerConfig) -> Self {
        let (events, receiver) = mpsc::unbounded_channel();
        let (taken, batches) = mpsc::unbounded_channel();
        let source = Arc::new(Seen::default());
        let shutdown = CancellationToken::new();
        let mut played = PlayedSource { events: receiver, seen: source.clone() };
        let stop = shutdown.clone();
        let run = tokio::spawn(async move {
            run(&mut played, Arc::new(PlayedSink(taken)), config, Arc::default(), None, stop).await
        });
        Self { events: Some(events), source, batches, shutdown, run }
    }

    fn give(&self, event: Result<SourceEvent, Error>) {
        self.events.as_ref().expect("not ended").send(event).expect("the consumer listens");
    }

    async fn batch(&mut self) -> Taken {
        self.batches.recv().await.expect("a batch")
    }

    /// Checks that no batch comes, even after a long time.
    async fn no_batch(&mut self) {
        let batch = timeout_at(Instant::now() + HOUR, self.batches.recv()).await;
        assert!(batch.is_err(), "{batch:?}");
    }

    async fn outcome(self) -> Result<(), Error> {
        let outcome = self.run.await.expect("no panic");
        assert_eq!(self.source.closed.load(SeqCst), 1, "closed exactly once");
        outcome
    }
}

fn config() -> ConsumerConfig {
    ConsumerConfig { batch_size: 3, batches_in_flight: 10, ..ConsumerConfig::default() }
}

#[tokio::test(start_paused = true)]
async fn a_batch_closes_by_count() {
    let mut stage = Stage::new(config());
    let start = Instant::now();
    stage.give(records(0..7));
    for expected in [vec![0, 1, 2], vec![3, 4, 5]] {
        let batch = stage.batch().await;
        assert_eq!((&batch.offsets, batch.at), (&expected, start));
        batch.done();
    }
}

#[tokio::test(start_paused = true)]
async fn records_without_an_assignment_are_accepted_and_an_empty_list_has_no_effect() {
    let mut stage = Stage::new(config());
    stage.give(Ok(SourceEvent::Records(Vec::new())));
    stage.no_batch().await;
    stage.give(records(0..3));
    assert_eq!(stage.batch().await.offsets, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_closes_by_bytes_and_one_record_may_exceed_the_limit() {
    let mut stage = Stage::new(ConsumerConfig { batch_bytes: 200, ..config() });
    let large = Record { value: Some(vec![b'x'; 5_000].into()), ..record(3) };
    let start = Instant::now();
    stage.give(records(0..3));
    stage.give(Ok(SourceEvent::Records(vec![large, record(4)])));
    for expected in [vec![0, 1], vec![2, 3]] {
        let batch = stage.batch().await;
        assert_eq!((&batch.offsets, batch.at), (&expected, start));
        batch.done();
    }
    assert_eq!(stage.batch().await.offsets, [4]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_closes_when_its_first_record_has_waited_for_the_timeout() {
    let mut stage = Stage::new(config());
    let start = Instant::now();
    stage.give(records(0..1));
    sleep(config().batch_timeout / 2).await;
    stage.give(records(1..2));
    let batch = stage.batch().await;
    assert_eq!((&batch.offsets, batch.at), (&vec![0, 1], start + config().batch_timeout));
    batch.done();
    // The timeout of the next batch begins with its first record.
    sleep(HOUR).await;
    stage.give(records(2..3));
    let given = Instant::now();
    assert_eq!(stage.batch().await.at, given + config().batch_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_full_pipeline_stops_reading() {
    let mut stage = Stage::new(ConsumerConfig { batches_in_flight: 2, ..config() });
    for offset in 0..100 {
        stage.give(records(offset..offset + 1));
    }
    let (first, second) = (stage.batch().await, stage.batch().await);
    stage.no_batch().await;
    // Two batches are in flight, and one full batch waits.
    assert_eq!(stage.source.delivered.load(SeqCst), 9);
    second.done();
    let third = stage.batch().await;
    assert_eq!(third.offsets, [6, 7, 8]);
    stage.no_batch().await;
    assert_eq!(stage.source.delivered.load(SeqCst), 12);
    assert_eq!(stage.source.committed(), NONE, "the oldest batch is in flight");
    first.done();
    third.done();
    assert_eq!(stage.batch().await.offsets, [9, 10, 11]);
}

#[tokio::test(start_paused = true)]
async fn positions_are_committed_at_intervals_up_to_the_oldest_batch_in_flight() {
    let mut stage = Stage::new(config());
    stage.give(records(0..9));
    let [first, second, third] = [stage.batch().await, stage.batch().await, stage.batch().await];
    assert_eq!([&first, &second, &third].map(|batch| batch.spans.clone()), [[(0, 3)], [(3, 6)], [(6, 9)]]);
    third.done();
    sleep(HOUR).await;
    assert_eq!(stage.source.committed(), NONE);
    first.done();
    sleep(HOUR).await;
    assert_eq!(stage.source.committed(), [3]);
    second.done();
    sleep(HOUR).await;
    assert_eq!(stage.source.committed(), [3, 9]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_and_commits_what_was_read() {
    let mut stage = Stage::new(ConsumerConfig { batches_in_flight: 1, ..config() });
    stage.give(records(0..8));
    let first = stage.batch().await;
    stage.shutdown.cancel();
    sleep(Duration::from_secs(1)).await;
    stage.give(records(8..100));
    first.done();
    // Records that were delivered before the stop are finished, in batches of the usual size. No more records are read.
    for expected in [vec![3, 4, 5], vec![6, 7]] {
        let batch = stage.batch().await;
        assert_eq!(batch.offsets, expected);
        batch.done();
    }
    let source = stage.source.clone();
    stage.outcome().await.expect("a graceful stop");
    assert_eq!(source.delivered.load(SeqCst), 8);
    assert_eq!(source.committed().last(), Some(&8));
}

#[tokio::test(start_paused = true)]
async fn only_a_stop_succeeds_without_a_confirmation_of_the_last_commit() {
    for stops in [true, false] {
        let stage = Stage::new(config());
        stage.source.closes_in_doubt.store(true, SeqCst);
        if stops {
            stage.shutdown.cancel();
        } else {
            stage.give(Ok(SourceEvent::End));
        }
        assert_eq!(stage.outcome().await.is_ok(), stops);
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_source_ends_the_run_once_all_records_are_done() {
    let mut stage = Stage::new(config());
    stage.give(records(0..2));
    stage.events = None;
    stage.batch().await.done();
    let source = stage.source.clone();
    stage.outcome().await.expect("an end");
    assert_eq!(source.committed(), [2]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_source_waits_for_the_store_without_a_timeout() {
    let mut stage = Stage::new(ConsumerConfig { batches_in_flight: 1, ..config() });
    stage.give(records(0..4));
    stage.events = None;
    let first = stage.batch().await;
    sleep(10 * HOUR).await;
    first.done();
    // The last batch does not wait until it is full or due, because no record will follow.
    let (last, start) = (stage.batch().await, Instant::now());
    assert_eq!((&last.offsets, last.at), (&vec![3], start));
    sleep(10 * HOUR).await;
    last.done();
    let source = stage.source.clone();
    stage.outcome().await.expect("an end");
    assert_eq!(source.committed().last(), Some(&4));
}

#[tokio::test(start_paused = true)]
async fn a_stop_after_the_end_of_the_source_lasts_only_the_drain_timeout() {
    let mut stage = Stage::new(config());
    stage.give(records(0..1));
    stage.events = None;
    stage.batch().await.result.send(Err(unavailable())).expect("the sink waits");
    sleep(HOUR).await;
    stage.shutdown.cancel();
    let start = Instant::now();
    stage.outcome().await.expect("a stop");
    assert_eq!(start.elapsed(), config().drain_timeout);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_store_is_unavailable_commits_only_finished_batches() {
    let mut stage = Stage::new(config());
    stage.give(records(0..9));
    let [first, second, third] = [stage.batch().await, stage.batch().await, stage.batch().await];
    first.done();
    second.result.send(Err(unavailable())).expect("the sink waits");
    third.done();
    sleep(Duration::from_millis(10)).await;
    stage.shutdown.cancel();
    let (source, start) = (stage.source.clone(), Instant::now());
    stage.outcome().await.expect("a stop, even with an unfinished batch");
    assert_eq!(start.elapsed(), config().drain_timeout);
    assert_eq!(source.committed(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_store_hangs_lasts_the_drain_timeout_and_the_grace() {
    let mut stage = Stage::new(config());
    stage.give(records(0..9));
    let hanging = [stage.batch().await, stage.batch().await, stage.batch().await];
    stage.shutdown.cancel();
    let (source, start) = (stage.source.clone(), Instant::now());
    stage.outcome().await.expect("a stop, even with an unfinished batch");
    assert_eq!(start.elapsed(), config().drain_timeout + ABANDON_GRACE);
    assert_eq!(source.committed(), NONE);
    // The calls of the store are not cancelled.
    hanging.into_iter().for_each(Taken::done);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_not_retryable_ends_the_run() {
    let mut stage = Stage::new(config());
    stage.give(records(0..7));
    let (first, second) = (stage.batch().await, stage.batch().await);
    second.result.send(Err(Error::internal("store", "a bug"))).expect("the sink waits");
    sleep(Duration::from_secs(1)).await;
    first.done(); // the other batch in flight succeeds
    let source = stage.source.clone();
    let error = stage.outcome().await.expect_err("the store's error");
    assert_eq!(error.to_string(), "store failed: a bug");
    assert_eq!(source.committed(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_panics_ends_the_run_and_is_not_committed() {
    let mut stage = Stage::new(config());
    stage.give(records(0..3));
    drop(stage.batch().await); // the sink panics without a result
    let source = stage.source.clone();
    let error = stage.outcome().await.expect_err("a panic");
    assert!(matches!(error, Error::Internal { dependency: "consumer", .. }), "{error}");
    assert_eq!(source.committed(), NONE);
}

#[tokio::test(start_paused = true)]
async fn a_retryable_error_of_the_source_is_retried_and_another_error_ends_the_run() {
    let mut stage = Stage::new(config());
    for _ in 0..20 {
        stage.give(Err(Error::unavailable("broker", "unavailable")));
    }
    stage.give(records(0..3));
    let start = Instant::now();
    stage.batch().await.done();
    let policy = RetryPolicy::default();
    assert!(start.elapsed() > 10 * policy.max_delay, "pauses between attempts: {:?}", start.elapsed());
    assert!(start.elapsed() < 40 * policy.max_delay, "the pauses are limited: {:?}", start.elapsed());
    stage.give(Err(Error::internal("broker", "gone")));
    let source = stage.source.clone();
    assert_eq!(stage.outcome().await.expect_err("the source's error").to_string(), "broker failed: gone");
    assert_eq!(source.committed(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_an_unavailable_source() {
    let stage = Stage::new(config());
    for _ in 0..20 {
        stage.give(Err(Error::unavailable("broker", "unavailable")));
    }
    sleep(Duration::from_secs(5)).await;
    stage.shutdown.cancel();
    let start = Instant::now();
    stage.outcome().await.expect("a stop");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_revoked_partition_is_dropped_from_the_batch_and_never_committed() {
    let mut stage = Stage::new(config());
    let other = |offset| Record { partition: PartitionId::new("events", 1), ..record(offset) };
    stage.give(records(0..3));
    let in_flight = stage.batch().await;
    stage.give(Ok(SourceEvent::Records(vec![record(3), other(70)])));
    stage.give(Ok(SourceEvent::Revoked(vec![PartitionId::new("events", 0)])));
    let rest = stage.batch().await;
    assert_eq!((&rest.offsets, &rest.spans), (&vec![70], &vec![(70, 71)]));
    in_flight.done();
    rest.done();
    sleep(HOUR).await;
    assert_eq!(stage.source.committed(), [71]);
    // The partition comes back at the offset that the group has committed.
    stage.give(Ok(SourceEvent::Assigned(vec![PartitionId::new("events", 0)])));
    stage.give(records(2..5));
    let batch = stage.batch().await;
    assert_eq!(batch.spans, [(2, 5)]);
    batch.done();
    sleep(HOUR).await;
    assert_eq!(stage.source.committed(), [71, 5]);
}

#[tokio::test(start_paused = true)]
async fn a_revocation_of_all_pending_records_leaves_no_empty_batch() {
    let mut stage = Stage::new(config());
    stage.give(records(0..2));
    stage.give(Ok(SourceEvent::Revoked(vec![PartitionId::new("events", 0)])));
    stage.no_batch().await;
}

#[tokio::test(start_paused = true)]
async fn vacant_offsets_are_processed_and_committed_without_a_record() {
    let mut stage = Stage::new(config());
    let vacant = |partition, from, to| Span {
        partition: PartitionId::new("events", partition),
        from,
        to,
        records: 0,
        last_timestamp: None,
    };
    stage.give(Ok(SourceEvent::Vacant(vec![vacant(0, 5, 6)])));
    let start = Instant::now();
    let batch = stage.batch().await;
    assert_eq!((&batch.offsets, &batch.spans, batch.at), (&vec![], &vec![(5, 6)], start + config().batch_timeout));
    batch.done();
    // Vacant offsets after a record wait for the batch of this record.
    stage.give(records(6..7));
    stage.give(Ok(SourceEvent::Vacant(vec![vacant(0, 5, 9)])));
    let batch = stage.batch().await;
    assert_eq!((&batch.offsets, &batch.spans), (&vec![6], &vec![(6, 9)]));
    sleep(HOUR).await;
    assert_eq!(stage.source.committed(), [6]);
    batch.done();
    sleep(HOUR).await;
    assert_eq!(stage.source.committed(), [6, 9]);
    // A revocation drops the vacant offsets of its partition only. A stop finishes the vacant offsets of other partitions.
    stage.give(Ok(SourceEvent::Vacant(vec![vacant(0, 9, 10), vacant(1, 0, 2)])));
    stage.give(Ok(SourceEvent::Revoked(vec![PartitionId::new("events", 0)])));
    let batch = stage.batch().await;
    assert_eq!(batch.spans, [(0, 2)]);
    batch.done();
    stage.give(Ok(SourceEvent::Vacant(vec![vacant(1, 0, 5)])));
    sleep(Duration::from_millis(1)).await;
    stage.shutdown.cancel();
    let batch = stage.batch().await;
    assert_eq!(batch.spans, [(2, 5)]);
    batch.done();
    let source = stage.source.clone();
    stage.outcome().await.expect("a stop");
    assert_eq!(source.committed(), [6, 9, 5]);
}

#[tokio::test(start_paused = true)]
async fn zeros_count_as_the_smallest_value_that_works() {
    let mut stage = Stage::new(ConsumerConfig {
        batch_size: 0,
        batch_bytes: 0,
        batch_timeout: Duration::ZERO,
        batches_in_flight: 0,
        commit_interval: Duration::ZERO,
        ..config()
    });
    stage.give(records(0..2));
    for offset in 0..2 {
        let batch = stage.batch().await;
        assert_eq!(batch.offsets, [offset]);
        batch.done();
    }
    stage.shutdown.cancel();
    stage.outcome().await.expect("a stop");
}
