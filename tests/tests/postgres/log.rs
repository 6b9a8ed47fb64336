//! A simulated topic: both services read it at their own pace, with real stores and without a broker.

use std::ops::Range;

use netagg_core::ports::{AggregateStore, EventStore};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Event, EventType, PartitionId, Span};
use netagg_pg::{PgAggregateStore, PgEventStore};
use sqlx::AssertSqlSafe;

use super::{Fresh, contributions_of, events_of};

/// A topic with a single partition. The offset of an event is its index.
pub(super) struct Log {
    events: Vec<Event>,
    store: PgEventStore,
    totals: PgAggregateStore,
}

impl Log {
    pub(super) fn new(fresh: &Fresh, events: impl IntoIterator<Item = Event>) -> Self {
        Self {
            events: events.into_iter().collect(),
            store: PgEventStore::new(fresh.postgres.clone()),
            totals: PgAggregateStore::new(fresh.postgres.clone()),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// Stores the events at these offsets, like the ingestor.
    pub(super) async fn store(&self, offsets: Range<usize>) {
        self.store.store(&events_of(self.events[offsets.clone()].to_vec(), span(offsets))).await.unwrap();
    }

    /// Counts the events at these offsets, like the aggregator.
    pub(super) async fn count(&self, offsets: Range<usize>) {
        self.totals.add(&contributions_of(self.events[offsets.clone()].to_vec(), span(offsets))).await.unwrap();
    }

    /// Processes these offsets like a faulty aggregator that loses their events.
    pub(super) async fn lose(&self, offsets: Range<usize>) {
        self.totals.add(&contributions_of(Vec::new(), span(offsets))).await.unwrap();
    }
}

fn span(offsets: Range<usize>) -> Vec<Span> {
    vec![Span {
        partition: PartitionId::new("events.telecom", 0),
        from: offsets.start as i64,
        to: offsets.end as i64,
        records: offsets.len() as u64,
        last_timestamp: None,
    }]
}

/// The event `id` on a day. Its type, duration and bytes follow from the id.
pub(super) fn of_day(id: u128, day: &str) -> Event {
    of_content(id, day, 0)
}

/// The event `id` with another content.
pub(super) fn of_content(id: u128, day: &str, content: u64) -> Event {
    event(EventTemplate {
        id,
        started_at: &format!("{day}T{:02}:30:00Z", id % 24),
        event_type: EventType::ALL[((id + u128::from(content)) % 5) as usize],
        duration_sec: (!id.is_multiple_of(3)).then_some(id as u32 % 1_000),
        bytes_up: (u64::MAX >> 1) - id as u64 % 1_000,
        bytes_down: id as u64 % 1_000 + content,
        ..EventTemplate::default()
    })
}

/// The rows of `agg_day` that differ from the sums over `events_raw`.
pub(super) async fn differences(fresh: &Fresh) -> Vec<String> {
    let query = "WITH raw AS (
            SELECT (started_at AT TIME ZONE 'UTC')::date AS day, type, count(*) AS count_events,
                   coalesce(sum(duration_sec), 0) AS sum_duration,
                   sum(bytes_up) AS sum_bytes_up, sum(bytes_down) AS sum_bytes_down
            FROM events_raw GROUP BY 1, 2),
        agg AS (SELECT day, type, count_events, sum_duration, sum_bytes_up, sum_bytes_down FROM agg_day)
        SELECT 'missing ' || missing FROM (TABLE raw EXCEPT TABLE agg) AS missing
        UNION ALL
        SELECT 'wrong ' || wrong FROM (TABLE agg EXCEPT TABLE raw) AS wrong";
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut fresh.connection().await).await.unwrap()
}

/// The number of identities that are in only one of the two ledgers.
pub(super) async fn ledger_differences(fresh: &Fresh) -> i64 {
    fresh
        .value(
            "SELECT (SELECT count(*) FROM (TABLE event_identity EXCEPT TABLE agg_identity) AS uncounted)
                  + (SELECT count(*) FROM (TABLE agg_identity EXCEPT TABLE event_identity) AS unstored)",
        )
        .await
}
