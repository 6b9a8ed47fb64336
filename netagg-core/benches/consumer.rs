//! Measures the cost of the consumer for each event: batches, offset tracking and tasks. The store does nothing.
//!
//! `cargo bench -p netagg-core --bench consumer`
#![allow(clippy::expect_used, reason = "a benchmark that cannot continue panics")]

use std::sync::Arc;

use async_trait::async_trait;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use netagg_core::memory::{MemoryDeadLetters, MemoryLog};
use netagg_core::ports::{EventStore, PeriodSums, SumsQuery, TimelineFilter, TimelineQuery};
use netagg_core::{
    Batch, BatchOutcome, Contribution, Error, Event, EventFields, IdentifiedEvent, Ingestor, PartitionId, Record,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const EVENT: &[u8] = br#"{"event_id":"550e8400-e29b-41d4-a716-446655440000","source_id":"provider-1","user_id":"123456789","type":"CALL_OUT","started_at":"2025-10-20T12:34:56Z","ended_at":"2025-10-20T12:56:00Z","duration_sec":127,"bytes_up":0,"bytes_down":0,"meta":{"cell":"A1","imei":"356938035643809","network":"LTE"}}"#;
const PARTITIONS: u32 = 8;

fn events(count: u32) -> Vec<Event> {
    let fields = Event::decode(EVENT).expect("valid").into_fields();
    (0..count)
        .map(|id| Event::new(EventFields { event_id: Uuid::from_u128(id.into()), ..fields.clone() }).expect("valid"))
        .collect()
}

fn batches(criterion: &mut Criterion) {
    let items: Vec<IdentifiedEvent> = events(5_000).into_iter().map(IdentifiedEvent::from).collect();
    let contributions: Vec<Contribution> = items.iter().map(|item| Contribution::of(&item.event)).collect();
    let mut group = criterion.benchmark_group("batch of 5,000");
    group.throughput(Throughput::Elements(5_000));
    group.bench_function("events", |bencher| {
        bencher.iter_batched(|| items.clone(), Batch::new, BatchSize::LargeInput);
    });
    group.bench_function("contributions", |bencher| {
        bencher.iter_batched(|| contributions.clone(), Batch::new, BatchSize::LargeInput);
    });
    group.finish();
}

/// A store that accepts every batch and does no work.
#[derive(Debug)]
struct NoopStore;

#[async_trait]
impl EventStore for NoopStore {
    async fn store(&self, batch: &Batch<IdentifiedEvent>) -> Result<BatchOutcome, Error> {
        Ok(BatchOutcome { new: batch.items().len() as u64, ..BatchOutcome::default() })
    }

    async fn timeline(&self, _: &TimelineQuery) -> Result<Vec<Event>, Error> {
        Ok(Vec::new())
    }

    async fn count(&self, _: &TimelineFilter) -> Result<u64, Error> {
        Ok(0)
    }

    async fn sums(&self, _: &SumsQuery) -> Result<Vec<PeriodSums>, Error> {
        Ok(Vec::new())
    }
}

fn ingest(criterion: &mut Criterion) {
    const COUNT: u32 = 50_000;
    let records: Vec<Record> = events(COUNT)
        .iter()
        .zip(0..)
        .map(|(event, number)| {
            let partition = PartitionId::new("events", number % PARTITIONS as i32);
            Record::new(partition, 0, event.encode()).with_timestamp(event.fields().started_at)
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut group = criterion.benchmark_group("ingest");
    group.throughput(Throughput::Elements(COUNT.into())).sample_size(20);
    group.bench_function("on one thread", |bencher| {
        bencher.iter_batched(
            || {
                let log = MemoryLog::new("events", PARTITIONS as usize);
                records.iter().cloned().for_each(|record| log.append(record));
                log.close();
                log
            },
            |log| {
                let ingestor = Ingestor::new(Arc::new(NoopStore), Arc::new(MemoryDeadLetters::new()));
                runtime.block_on(ingestor.run(&mut log.source("group"), CancellationToken::new())).expect("the end");
                assert_eq!(ingestor.stats().snapshot().new, u64::from(COUNT));
                log
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, batches, ingest);
criterion_main!(benches);
