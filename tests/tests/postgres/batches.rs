//! Compares both stores with a model, for any mix of new events, duplicates and conflicts.
//!
//! The copies are within a batch and across batches, days and months. Any ranges of offsets are delivered again, one after the
//! other and by several concurrent writers.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use futures::future::join_all;
use netagg_core::ports::{AggregateStore, EventStore, TimelineFilter, TimelineQuery, TotalsQuery, TotalsReader};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{
    AggregateRow, Batch, BatchOutcome, Conflict, ContentHash, Contribution, Day, Event, EventKey, EventType,
    Granularity, Identified, IdentifiedEvent, Identity, PartitionId, RecordPosition, Span, SpanCounts, Timestamp,
    Totals, UserId, sum_by_day,
};
use netagg_pg::{PgAggregateStore, PgEventStore, Postgres};
use netagg_testkit::eventually;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::{Fresh, connect_with};

const PARTITIONS: usize = 2;
const WRITERS: usize = 4;

/// With these values, no batch is written with COPY, some batches, and all batches.
const MAX_INSERT_ROWS: [usize; 3] = [usize::MAX, 8, 0];

#[test]
fn any_mix_of_copies_gives_the_result_of_the_model() {
    run(48, 20, |services, pool, case| Box::pin(write_in_turn(services, pool, case)));
}

#[test]
fn concurrent_batches_give_the_result_of_some_order() {
    run(24, 4 * WRITERS, |services, pool, case| Box::pin(write_at_once(services, pool, case)));
}

/// A store that has found only duplicates of recent events looks up only recent keys.
#[tokio::test]
async fn a_duplicate_is_found_whether_its_original_is_recent_or_old() {
    let fresh = Fresh::migrated().await;
    let postgres = connect_with(fresh.database.url(), |config| config.max_insert_rows = 0);
    // Other processes have stores of their own, which do not know each other's recent keys.
    for (store, other) in Service::both(&postgres).iter().zip(&Service::both(&postgres)) {
        let write_to = async |store: &Service, ids: Range<u128>, more: Range<u128>| {
            let events = ids.chain(more).map(|id| event(EventTemplate { id, ..EventTemplate::default() }));
            let outcome = store.write_events(events.collect()).await;
            assert_eq!(outcome.conflicts, []);
            (outcome.new, outcome.duplicates)
        };
        let write = async |ids, more| write_to(store, ids, more).await;
        assert_eq!(write_to(other, 1_000..1_010, 0..0).await, (10, 0));
        assert_eq!(write(0..10, 0..0).await, (10, 0));
        for first in 1..20 {
            // The first five events of each batch are copies of the last five events of the batch before it.
            assert_eq!(write(first * 10 - 5..first * 10 + 10, 0..0).await, (10, 5), "{first}");
        }
        assert_eq!(write(198..203, 1_000..1_003).await, (3, 5), "recent originals, and originals of another process");
        assert_eq!(write(199..204, 1_000..1_003).await, (1, 7), "the same events again");
        assert_eq!(write(0..205, 1_000..1_010).await, (1, 214), "all events");
    }
    futures::join!(postgres.close(), fresh.postgres.close());
}

/// The batches of one process never wait for each other in a circle of which PostgreSQL sees only a part.
#[tokio::test]
async fn a_batch_whose_copy_was_refused_waits_for_earlier_batches_with_its_keys() {
    let fresh = Fresh::migrated().await;
    let pool = PgPool::connect(fresh.database.url()).await.unwrap();
    let postgres = connect_with(fresh.database.url(), |config| config.max_insert_rows = 0);
    let store = Arc::new(PgAggregateStore::new(postgres.clone()));
    let mut events: Vec<_> = (0..5).map(|id| event(EventTemplate { id, ..EventTemplate::default() })).collect();
    events.sort_by_key(Event::key);
    let [held, of_first, of_second, of_both, known] = [0, 1, 2, 3, 4].map(|at: usize| Contribution::of(&events[at]));
    let write = |items: &[Contribution]| {
        let (store, batch) = (store.clone(), Batch::new(items.to_vec()));
        tokio::spawn(async move { store.add(&batch).await })
    };
    write(&[known]).await.unwrap().unwrap();

    // Another process holds a key of the first batch, so the `COPY` of this batch waits before its other keys.
    let mut other = pool.begin().await.unwrap();
    sqlx::query("INSERT INTO agg_identity (key, content, day) VALUES ($1, 0, '2025-10-20')")
        .bind(Uuid::from_bytes(held.identity.key.to_bytes()))
        .execute(&mut *other)
        .await
        .unwrap();
    let sessions = async |condition: &str, expected: i64| {
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND {condition}");
        eventually(Duration::from_secs(60), condition, async || {
            let found: i64 = sqlx::query_scalar(AssertSqlSafe(count.as_str())).fetch_one(&pool).await.unwrap();
            if found == expected { Ok(()) } else { Err(format!("{found} sessions, not {expected}")) }
        })
        .await;
    };
    let first = write(&[held, of_first, of_both]);
    sessions("wait_event_type = 'Lock'", 1).await;
    let second = write(&[of_second, of_both]);
    sessions("state = 'idle in transaction'", 2).await;
    let third = write(&[of_first, of_second, known]);
    sessions("state = 'idle in transaction'", 3).await;
    other.rollback().await.unwrap();

    for (batch, expected) in [(first, (3, 0)), (second, (1, 1)), (third, (0, 3))] {
        let outcome = batch.await.unwrap().unwrap();
        assert_eq!((outcome.new, outcome.duplicates), expected);
    }
    futures::join!(pool.close(), postgres.close(), fresh.postgres.close());
}

/// A log, and the batches that each service reads from it.
#[derive(Clone, Debug)]
struct Case {
    log: Arc<[Vec<Slot>; PARTITIONS]>,
    deliveries: [Vec<Delivery>; 2],
}

/// An offset of a partition.
#[derive(Clone, Copy, Debug)]
enum Slot {
    /// An event with one of several contents. Each content can be written in two ways.
    Event { id: u8, content: u8, spelling: bool },
    /// A record without a valid event.
    Invalid,
    /// No record.
    Vacant,
}

/// The range of offsets of each partition that a batch contains.
type Delivery = [Range<usize>; PARTITIONS];

fn any_case(most_batches: usize) -> impl Strategy<Value = Case> {
    let content = prop_oneof![3 => Just(0_u8), 1 => 1..4_u8];
    let event = (0..10_u8, content, any::<bool>());
    let slot = prop_oneof![
        8 => event.prop_map(|(id, content, spelling)| Slot::Event { id, content, spelling }),
        1 => Just(Slot::Invalid),
        1 => Just(Slot::Vacant),
    ];
    let log = prop::array::uniform2(prop::collection::vec(slot, 1..30));
    log.prop_flat_map(move |log| {
        let range = |slots: &Vec<Slot>| {
            let length = slots.len();
            (0..=length, 0..12_usize).prop_map(move |(from, by)| from..(from + by).min(length))
        };
        let delivery = log.each_ref().map(range);
        let deliveries = prop::array::uniform2(prop::collection::vec(delivery, 1..=most_batches));
        (Just(Arc::new(log)), deliveries).prop_map(|(log, deliveries)| Case { log, deliveries })
    })
}

/// Runs `check` on this number of cases, each with an empty database.
fn run(
    cases: u32,
    most_batches: usize,
    check: impl for<'a> Fn([Service; 2], &'a PgPool, &'a Case) -> futures::future::LocalBoxFuture<'a, ()>,
) {
    let runtime = Runtime::new().unwrap();
    let fresh = runtime.block_on(Fresh::migrated());
    let pool = runtime.block_on(PgPool::connect(fresh.database.url())).unwrap();
    let stores = MAX_INSERT_ROWS.map(|max_insert_rows| {
        let _context = runtime.enter();
        connect_with(fresh.database.url(), |config| config.max_insert_rows = max_insert_rows)
    });
    let config =
        ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 300, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&(any_case(most_batches), 0..stores.len()), |(case, at)| {
        runtime.block_on(async {
            sqlx::raw_sql(EMPTY).execute(&pool).await.unwrap();
            check(Service::both(&stores[at]), &pool, &case).await;
        });
        Ok(())
    });
    runtime.block_on(async {
        futures::join!(pool.close(), fresh.postgres.close(), join_all(stores.iter().map(Postgres::close)))
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Deletes all rows. For a few rows, this is faster than `TRUNCATE`.
const EMPTY: &str = "DELETE FROM events_raw; DELETE FROM event_identity; DELETE FROM event_conflict; \
    DELETE FROM agg_identity; DELETE FROM agg_day; DELETE FROM agg_dirty_day; DELETE FROM consumer_progress";

impl Case {
    /// The slots of `delivery`, in the order in which they are read.
    fn slots(&self, delivery: &Delivery) -> impl Iterator<Item = (PartitionId, i64, Slot)> {
        (0..PARTITIONS).flat_map(move |number| {
            let range = delivery[number].clone();
            range.map(move |offset| (partition(number), offset as i64, self.log[number][offset]))
        })
    }

    fn spans(&self, delivery: &Delivery) -> Vec<Span> {
        let span = |number: usize| Span {
            partition: partition(number),
            from: delivery[number].start as i64,
            to: delivery[number].end as i64,
            records: self.log[number][delivery[number].clone()]
                .iter()
                .filter(|slot| !matches!(slot, Slot::Vacant))
                .count() as u64,
            last_timestamp: None,
        };
        (0..PARTITIONS).map(span).collect()
    }

    fn batch<T: Identified>(&self, delivery: &Delivery, item: impl Fn(Event) -> T) -> Batch<T> {
        let mut batch = Batch::builder(self.spans(delivery));
        for (partition, offset, slot) in self.slots(delivery) {
            match slot {
                Slot::Event { id, content, spelling } => {
                    batch.push(&partition, offset, item(make(id, content, spelling)));
                }
                Slot::Invalid => batch.reject(&partition, offset),
                Slot::Vacant => {}
            }
        }
        batch.build()
    }

    /// The expected outcome of `delivery` in a store that has `kept` these copies. Adds its new events to `kept`.
    fn expect(&self, delivery: &Delivery, kept: &mut FirstCopies) -> BatchOutcome {
        let mut outcome =
            BatchOutcome { span_counts: vec![SpanCounts::default(); PARTITIONS], ..BatchOutcome::default() };
        let mut days = BTreeSet::new();
        for (partition, offset, slot) in self.slots(delivery) {
            let counts = &mut outcome.span_counts[partition.number as usize];
            let Slot::Event { id, content, spelling } = slot else {
                counts.invalid += u64::from(matches!(slot, Slot::Invalid));
                continue;
            };
            let event = make(id, content, spelling);
            match kept.get(&event.key()) {
                None => {
                    outcome.new += 1;
                    counts.accepted += 1;
                    days.insert(event.day());
                    kept.insert(event.key(), event);
                }
                Some(first) if *first == event => {
                    outcome.duplicates += 1;
                    counts.duplicates += 1;
                }
                Some(first) => {
                    counts.conflicts += 1;
                    outcome.conflicts.push(Conflict {
                        kept: Identity::of(first),
                        dropped: Identity::of(&event),
                        position: Some(RecordPosition { partition, offset }),
                    });
                }
            }
        }
        // The sort is stable, so conflicts of the same key stay in the order in which they were read.
        outcome.conflicts.sort_by_key(|conflict| conflict.dropped.key);
        outcome.days = days.into_iter().collect();
        outcome
    }
}

/// A written batch and its outcome.
type Written = (Delivery, BatchOutcome);

/// The first copy of each identity.
type FirstCopies = BTreeMap<EventKey, Event>;

fn partition(number: usize) -> PartitionId {
    PartitionId::new("events.telecom", number as i32)
}

/// An event. Different identities share an event id or a source. The contents of an identity differ in the month, in the day, or
/// only in the type.
fn make(id: u8, content: u8, spelling: bool) -> Event {
    let times = ["2025-10-31T23:59:59.999999Z", "2025-11-01T00:00:00Z", "2025-10-30T12:00:00Z"];
    event(EventTemplate {
        id: u128::from(id / 2),
        source: ["a", "ж"][usize::from(id % 2)],
        event_type: EventType::ALL[usize::from((id + content / 3) % 5)],
        started_at: times[usize::from(content % 3)],
        duration_sec: (content != 1).then_some(u32::from(id)),
        bytes_up: u64::MAX >> 1,
        bytes_down: u64::from(id),
        meta: Some(if spelling { r#"{"a":1.0,"b":[]}"# } else { r#"{ "b":[], "a":10e-1}"# }),
        ..EventTemplate::default()
    })
}

#[derive(Debug)]
enum Service {
    Ingestor(PgEventStore),
    Aggregator(PgAggregateStore),
}

impl Service {
    fn both(postgres: &Postgres) -> [Self; 2] {
        [Self::Ingestor(PgEventStore::new(postgres.clone())), Self::Aggregator(PgAggregateStore::new(postgres.clone()))]
    }

    async fn write_events(&self, events: Vec<Event>) -> BatchOutcome {
        match self {
            Self::Ingestor(store) => store.store(&Batch::new(events.into_iter().map(Into::into).collect())).await,
            Self::Aggregator(store) => store.add(&Batch::new(events.iter().map(Contribution::of).collect())).await,
        }
        .unwrap()
    }

    async fn write(&self, case: &Case, delivery: &Delivery) -> BatchOutcome {
        match self {
            Self::Ingestor(store) => store.store(&case.batch(delivery, IdentifiedEvent::from)).await,
            Self::Aggregator(store) => store.add(&case.batch(delivery, |event| Contribution::of(&event))).await,
        }
        .unwrap()
    }

    /// Checks that the store has exactly the copies in `kept`.
    async fn check(&self, pool: &PgPool, kept: &FirstCopies) {
        assert_eq!(self.ledger(pool).await, kept.values().map(Identity::of).collect::<Vec<_>>());
        match self {
            Self::Ingestor(store) => {
                let user_id = UserId::new("user-1").unwrap();
                let filter = TimelineFilter { user_id, from: Timestamp::MIN, to: Timestamp::MAX, event_type: None };
                let mut stored = store
                    .timeline(&TimelineQuery { filter, after: None, limit: 1_000, max_bytes: u64::MAX })
                    .await
                    .unwrap();
                stored.sort_by_key(Event::key);
                assert_eq!(stored, kept.values().cloned().collect::<Vec<_>>());
                let count: i64 = sqlx::query_scalar("SELECT count(*) FROM events_raw").fetch_one(pool).await.unwrap();
                assert_eq!(count, kept.len() as i64);
            }
            Self::Aggregator(store) => {
                let days = sum_by_day(&kept.values().map(Contribution::of).collect::<Vec<_>>());
                let mut months = BTreeMap::<_, Totals>::new();
                for ((day, event_type), totals) in &days {
                    *months.entry((day.month().first_day(), *event_type)).or_default() += *totals;
                }
                let [from, to] = [Timestamp::MIN, Timestamp::MAX].map(Timestamp::day);
                for (granularity, expected) in [(Granularity::Day, days), (Granularity::Month, months)] {
                    let query = TotalsQuery { granularity, from, to, event_type: None };
                    let row = |((date, event_type), totals)| AggregateRow { date, event_type, totals };
                    let expected: Vec<AggregateRow> = expected.into_iter().map(row).collect();
                    assert_eq!(store.totals(&query).await.unwrap(), expected);
                }
            }
        }
    }

    /// The identities in the ledger, in the order of their keys.
    async fn ledger(&self, pool: &PgPool) -> Vec<Identity> {
        let query = match self {
            Self::Ingestor(_) => "SELECT key, content, day FROM event_identity ORDER BY key",
            Self::Aggregator(_) => "SELECT key, content, day FROM agg_identity ORDER BY key",
        };
        let rows: Vec<(Uuid, i64, NaiveDate)> = sqlx::query_as(query).fetch_all(pool).await.unwrap();
        let identity = |(key, content, day): (Uuid, i64, NaiveDate)| Identity {
            key: EventKey::from_bytes(key.into_bytes()),
            content: ContentHash::from_i64(content),
            day: Day::from(day),
        };
        rows.into_iter().map(identity).collect()
    }

    /// Checks that the recorded progress and counts of each partition match the outcomes of the written batches.
    async fn check_progress(&self, pool: &PgPool, case: &Case, written: &[Written]) {
        let mut expected = Vec::new();
        for number in 0..PARTITIONS {
            let (mut done, mut counts, mut delivered, mut vacant) = (BTreeSet::new(), SpanCounts::default(), 0, 0);
            for (delivery, outcome) in written {
                let (span, outcomes) = (&case.spans(delivery)[number], outcome.span_counts[number]);
                let all = outcomes.accepted + outcomes.duplicates + outcomes.conflicts + outcomes.invalid;
                assert_eq!(all, span.records, "{outcomes:?} of {span:?}");
                counts += outcomes;
                done.extend(span.from..span.to);
                delivered += span.to - span.from;
                vacant += span.to - span.from - span.records as i64;
            }
            if !done.is_empty() {
                let redelivered = delivered - done.len() as i64;
                let counts =
                    [counts.accepted, counts.duplicates, counts.conflicts, counts.invalid].map(|count| count as i64);
                let outcomes = counts.iter().sum::<i64>() + vacant;
                assert_eq!(done.len() as i64 + redelivered, outcomes, "every delivered offset has an outcome");
                let counts = [&counts[..], &[vacant, redelivered, 0]].concat();
                expected.push((number as i32, done.into_iter().collect::<Vec<_>>(), counts));
            }
        }
        let progress: Vec<(i32, Vec<i64>, Vec<i64>)> = sqlx::query_as(
            "SELECT partition,
                    ARRAY(SELECT generate_series(lower(range), upper(range) - 1) FROM unnest(done) AS range ORDER BY 1),
                    ARRAY[accepted, duplicates, conflicts, invalid, vacant, redelivered, uncounted]
             FROM consumer_progress WHERE service = $1 ORDER BY partition",
        )
        .bind(self.name())
        .fetch_all(pool)
        .await
        .unwrap();
        assert_eq!(progress, expected);
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Ingestor(_) => PgEventStore::SERVICE,
            Self::Aggregator(_) => PgAggregateStore::SERVICE,
        }
    }
}

/// Writes the batches one after the other. Each outcome must be the outcome of the model.
async fn write_in_turn(services: [Service; 2], pool: &PgPool, case: &Case) {
    let [ingested, aggregated] = [0, 1].map(async |at| {
        let (service, mut kept, mut written) = (&services[at], FirstCopies::new(), Vec::new());
        for delivery in &case.deliveries[at] {
            let outcome = service.write(case, delivery).await;
            assert_eq!(outcome, case.expect(delivery, &mut kept));
            written.push((delivery.clone(), outcome));
        }
        service.check(pool, &kept).await;
        service.check_progress(pool, case, &written).await;
        conflicts_of(written)
    });
    let (ingestors, aggregators) = futures::join!(ingested, aggregated);
    check_conflicts(pool, &ingestors, &aggregators).await;
}

/// Several concurrent writers of both services. The ledgers show which copy of each identity came first; all other outcomes
/// follow from this.
async fn write_at_once(services: [Service; 2], pool: &PgPool, case: &Case) {
    let services = services.map(Arc::new);
    let writers = (0..2 * WRITERS).map(|writer| {
        let (service, case) = (services[writer % 2].clone(), case.clone());
        tokio::spawn(async move {
            let mut written = Vec::new();
            for delivery in case.deliveries[writer % 2].iter().skip(writer / 2).step_by(WRITERS) {
                written.push((delivery.clone(), service.write(&case, delivery).await));
            }
            written
        })
    });
    let mut written = [Vec::new(), Vec::new()];
    for (writer, joined) in join_all(writers).await.into_iter().enumerate() {
        written[writer % 2].extend(joined.unwrap());
    }

    let mut conflicts = Vec::new();
    for (service, written) in services.iter().zip(written) {
        let ledger = service.ledger(pool).await;
        let mut kept = FirstCopies::new();
        for (.., slot) in written.iter().flat_map(|(delivery, _)| case.slots(delivery)) {
            let Slot::Event { id, content, spelling } = slot else { continue };
            let event = make(id, content, spelling);
            if ledger.contains(&Identity::of(&event)) {
                kept.insert(event.key(), event);
            }
        }
        // If all batches came again, each new event would be a duplicate, and all other outcomes would be the same.
        let identities = kept.len() as u64;
        for (delivery, outcome) in &written {
            let again = case.expect(delivery, &mut kept);
            assert_eq!(again.new, 0, "one copy of each identity is kept");
            assert_eq!(outcome.new + outcome.duplicates, again.duplicates);
            assert_eq!(outcome.conflicts, again.conflicts);
        }
        assert_eq!(
            written.iter().map(|(_, outcome)| outcome.new).sum::<u64>(),
            identities,
            "each identity is new once"
        );
        service.check(pool, &kept).await;
        service.check_progress(pool, case, &written).await;
        conflicts.push(conflicts_of(written));
    }
    check_conflicts(pool, &conflicts[0], &conflicts[1]).await;
}

fn conflicts_of(written: Vec<Written>) -> Vec<Conflict> {
    written.into_iter().flat_map(|(_, outcome)| outcome.conflicts).collect()
}

/// Checks that the ingestor has recorded each dropped content once, and that both services have marked the days of both copies.
async fn check_conflicts(pool: &PgPool, ingestors: &[Conflict], aggregators: &[Conflict]) {
    let days = |conflict: &Conflict| [conflict.kept.day, conflict.dropped.day];
    let expected: BTreeSet<NaiveDate> = ingestors.iter().chain(aggregators).flat_map(days).map(Day::to_date).collect();
    let marked: Vec<NaiveDate> =
        sqlx::query_scalar("SELECT day FROM agg_dirty_day ORDER BY day").fetch_all(pool).await.unwrap();
    assert_eq!(marked, expected.into_iter().collect::<Vec<_>>());

    let listed: Vec<(Uuid, i64, NaiveDate, i64, NaiveDate, i32, i64)> = sqlx::query_as(
        "SELECT key, kept_content, kept_day, dropped_content, dropped_day, partition, record_offset FROM event_conflict",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let row = |conflict: &Conflict| {
        let (Conflict { kept, dropped, .. }, position) = (conflict, conflict.position.clone().unwrap());
        let key = Uuid::from_bytes(dropped.key.to_bytes());
        let (kept, dropped) = [kept, dropped].map(|copy| (copy.content.to_i64(), copy.day.to_date())).into();
        (key, kept.0, kept.1, dropped.0, dropped.1, position.partition.number, position.offset)
    };
    let all: BTreeSet<_> = ingestors.iter().map(row).collect();
    assert!(listed.iter().all(|row| all.contains(row)), "{listed:?} of {all:?}");
    let dropped = |row: &(Uuid, i64, NaiveDate, i64, NaiveDate, i32, i64)| (row.0, row.3);
    let mut contents: Vec<_> = listed.iter().map(dropped).collect();
    contents.sort_unstable();
    assert_eq!(contents, all.iter().map(dropped).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
}
