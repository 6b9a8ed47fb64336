//! The store of events, in the table `events_raw`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::{Stream, TryStreamExt};
use netagg_core::crash::{self, CrashPoint};
use netagg_core::ports::{EventStore, PeriodSums, SumsQuery, TimelineFilter, TimelineQuery};
use netagg_core::{
    Batch, BatchOutcome, Conflict, Contribution, Error, Event, EventFields, EventType, IdentifiedEvent, Meta, Month,
    ProcessingMode, SourceId, Timestamp, UserId, sum_by_day,
};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection};
use tracing::Instrument;
use uuid::Uuid;

use super::dedup::Dedup;
use super::store_hook::StoreHook;
use super::{progress, totals};
use crate::client::copy_format::{Row, copy_in};
use crate::client::error::{CHECK_VIOLATION, PgError};
use crate::client::rows::{self, TotalsRow};
use crate::client::{Postgres, Traced};
use crate::schema::partitions::{Partitions, WithoutPartition};

const COPY_EVENTS: &str = "COPY events_raw (source_id, event_id, user_id, type, started_at, ended_at, duration_sec, \
                           bytes_up, bytes_down, meta) FROM STDIN (FORMAT binary)";

const COPY_ASIDE: &str = "COPY events_set_aside (source_id, event_id, user_id, type, started_at, ended_at, duration_sec, \
                          bytes_up, bytes_down, meta) FROM STDIN (FORMAT binary)";

/// Stores events in `events_raw`, and makes a monthly partition when an event needs it.
#[derive(Debug)]
pub struct PgEventStore {
    postgres: Postgres,
    mode: ProcessingMode,
    partitions: Partitions,
    dedup: Dedup,
    hook: Option<Arc<dyn StoreHook>>,
}

impl PgEventStore {
    /// The name of the service in `consumer_progress`.
    pub const SERVICE: &str = progress::INGESTOR;

    /// A store of events in `postgres`, in the separate mode.
    pub fn new(postgres: Postgres) -> Self {
        Self::in_mode(postgres, ProcessingMode::Separate)
    }

    pub(super) fn in_mode(postgres: Postgres, mode: ProcessingMode) -> Self {
        let dedup = Dedup::of_events(postgres.clone(), mode);
        Self { partitions: postgres.partitions(), postgres, mode, dedup, hook: None }
    }

    /// Runs `hook` in each transaction that stores new events.
    #[must_use]
    pub fn with_hook(self, hook: Arc<dyn StoreHook>) -> Self {
        Self { hook: Some(hook), ..self }
    }

    /// Returns for each of `events` how many copies are stored with its identity, user and time. A verification expects one
    /// copy.
    ///
    /// # Errors
    /// Retryable while the store cannot be read.
    pub async fn count_copies(&self, events: &[Event]) -> Result<Vec<u64>, Error> {
        let fields = || events.iter().map(Event::fields);
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let found: Vec<(i64, i64)> = sqlx::query_as(include_str!("../../queries/events/copies.sql"))
                    .bind(fields().map(|fields| fields.user_id.as_str()).collect::<Vec<_>>())
                    .bind(fields().map(|fields| fields.started_at.to_datetime()).collect::<Vec<_>>())
                    .bind(fields().map(|fields| fields.source_id.as_str()).collect::<Vec<_>>())
                    .bind(fields().map(|fields| fields.event_id).collect::<Vec<_>>())
                    .fetch_all(&mut *session)
                    .traced("SELECT events_raw copies")
                    .await?;
                session.release();
                let found: HashMap<_, _> = found.into_iter().collect();
                Ok((0..events.len() as i64).map(|at| found.get(&at).map_or(0, |count| count.unsigned_abs())).collect())
            })
            .await
    }

    /// Stores the new events. An event for which there is no partition is set aside.
    async fn try_store(
        &self,
        batch: &Batch<IdentifiedEvent>,
        without_partition: &BTreeMap<Month, Arc<WithoutPartition>>,
    ) -> Result<BatchOutcome, PgError> {
        let mut session = self.postgres.writing_session().await?;
        let mut entry = self.dedup.enter(&mut session, batch).instrument(tracing::info_span!("ledger")).await?;
        if !entry.new_items().is_empty() {
            write_events(&mut session, entry.new_items(), without_partition, self.postgres.max_insert_rows()).await?;
            crash::pass(CrashPoint::EventsCopied);
        }
        let outcome = entry.resolve(&mut session).await?;
        // Not before: this batch has just waited for other batches, which may need rows that the hook locks.
        if let Some(hook) = &self.hook
            && !entry.new_items().is_empty()
        {
            let events: Vec<_> = entry.new_items().iter().map(|item| &item.event).collect();
            hook.stored(&mut session, &events).await.map_err(PgError::Hook)?;
        }
        note_conflicts(&mut session, &outcome.conflicts, batch).await?;
        progress::note(&mut session, Self::SERVICE, batch.spans(), &outcome.span_counts).await?;
        if self.mode == ProcessingMode::Combined {
            // All batches update the totals of today. So these rows are locked last, until the commit.
            let new: Vec<Contribution> = entry.new_items().iter().copied().map(Contribution::from).collect();
            totals::add(&mut session, sum_by_day(&new)).await?;
            crash::pass(CrashPoint::TotalsAdded);
        }
        progress::commit(&mut session).await?;
        session.release();
        Ok(outcome)
    }
}

/// Reads the events of `user_id` until they have more than `max_bytes`. Returns whether these are all rows.
async fn page(
    mut rows: impl Stream<Item = Result<PgRow, sqlx::Error>> + Send + Unpin,
    user_id: &UserId,
    max_bytes: u64,
) -> Result<(Vec<Event>, bool), PgError> {
    let (mut events, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let event = EventRow::from_row(&row)?.decode(user_id)?;
        bytes += event.size();
        events.push(event);
        if bytes > max_bytes {
            return Ok((events, false));
        }
    }
    Ok((events, true))
}

/// Inserts a few items into `events_raw`.
async fn insert_events(connection: &mut PgConnection, items: &[&IdentifiedEvent]) -> Result<(), PgError> {
    let events = || items.iter().map(|item| item.event.fields());
    // The numbers of a valid event fit: MAX_DURATION_SEC and MAX_BYTES are the bounds of the columns.
    sqlx::query(include_str!("../../queries/events/insert.sql"))
        .bind(events().map(|fields| fields.source_id.as_str()).collect::<Vec<_>>())
        .bind(events().map(|fields| fields.event_id).collect::<Vec<_>>())
        .bind(events().map(|fields| fields.user_id.as_str()).collect::<Vec<_>>())
        .bind(events().map(|fields| fields.event_type.as_str()).collect::<Vec<_>>())
        .bind(events().map(|fields| fields.started_at.to_datetime()).collect::<Vec<_>>())
        .bind(events().map(|fields| fields.ended_at.map(|at| at.to_datetime())).collect::<Vec<_>>())
        .bind(events().map(|fields| fields.duration_sec.map(|seconds| seconds as i32)).collect::<Vec<_>>())
        .bind(events().map(|fields| fields.bytes_up as i64).collect::<Vec<_>>())
        .bind(events().map(|fields| fields.bytes_down as i64).collect::<Vec<_>>())
        .bind(events().map(|fields| fields.meta.as_ref().map(Meta::as_json)).collect::<Vec<_>>())
        .execute(connection)
        .traced("INSERT events_raw")
        .await?;
    Ok(())
}

/// Writes `items` into `events_raw`, and sets aside the events for which there is no partition.
async fn write_events(
    connection: &mut PgConnection,
    items: &[&IdentifiedEvent],
    without_partition: &BTreeMap<Month, Arc<WithoutPartition>>,
    max_insert_rows: usize,
) -> Result<(), PgError> {
    let has_partition = |item: &&&IdentifiedEvent| {
        let problem = without_partition.get(&item.identity.day.month());
        problem.is_none_or(|problem| problem.covers(item.event.fields().started_at))
    };
    let (stored, set_aside): (Vec<&IdentifiedEvent>, Vec<_>) = items.iter().partition(has_partition);
    let encode = |row: &mut Row<'_>, item: &IdentifiedEvent| encode(row, &item.event);
    if stored.len() <= max_insert_rows {
        insert_events(connection, &stored).await?;
    } else {
        copy_in(connection, COPY_EVENTS, 10, stored.into_iter(), encode).traced("COPY events_raw").await?;
    }
    if !set_aside.is_empty() {
        copy_in(connection, COPY_ASIDE, 10, set_aside.into_iter(), encode).traced("COPY events_set_aside").await?;
    }
    Ok(())
}

#[async_trait]
impl EventStore for PgEventStore {
    async fn store(&self, batch: &Batch<IdentifiedEvent>) -> Result<BatchOutcome, Error> {
        self.postgres
            .call(async {
                let months = || batch.items().iter().map(|item| item.identity.day.month());
                let ensured = self.partitions.ensure_for(months()).await?;
                match self.try_store(batch, &ensured.without_partition).await {
                    // A partition that is in the cache has been dropped or detached.
                    Err(error) if error.is(CHECK_VIOLATION) => {
                        self.partitions.forget();
                        let ensured = self.partitions.ensure_for(months()).await?;
                        self.try_store(batch, &ensured.without_partition).await
                    }
                    result => result,
                }
            })
            .await
    }

    async fn timeline(&self, query: &TimelineQuery) -> Result<Vec<Event>, Error> {
        let TimelineQuery { filter, after, limit, max_bytes } = query;
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let rows = sqlx::query(include_str!("../../queries/events/timeline.sql"))
                    .bind(filter.user_id.as_str())
                    .bind(filter.from.to_datetime())
                    .bind(filter.to.to_datetime())
                    .bind(filter.event_type.map(EventType::as_str))
                    .bind(after.as_ref().map(|after| after.started_at.to_datetime()))
                    .bind(after.as_ref().map(|after| after.source_id.as_str()))
                    .bind(after.as_ref().map(|after| after.event_id))
                    .bind(i64::from(*limit))
                    .fetch(&mut *session);
                let (events, is_whole) =
                    page(rows, &filter.user_id, *max_bytes).traced("SELECT events_raw timeline").await?;
                // Otherwise the server would send more rows. The session is dropped without a release, which closes its
                // connection.
                if is_whole {
                    session.release();
                }
                Ok(events)
            })
            .await
    }

    async fn count(&self, filter: &TimelineFilter) -> Result<u64, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let count: i64 = sqlx::query_scalar(include_str!("../../queries/events/timeline_count.sql"))
                    .bind(filter.user_id.as_str())
                    .bind(filter.from.to_datetime())
                    .bind(filter.to.to_datetime())
                    .bind(filter.event_type.map(EventType::as_str))
                    .fetch_one(&mut *session)
                    .traced("SELECT events_raw count")
                    .await?;
                session.release();
                Ok(count.unsigned_abs())
            })
            .await
    }

    async fn sums(&self, query: &SumsQuery) -> Result<Vec<PeriodSums>, Error> {
        let bounds: Vec<_> = query.bounds.iter().map(|bound| bound.to_datetime()).collect();
        // The last bound starts no period.
        let Some(((first, last), starts)) = bounds.first().zip(bounds.last()).zip(bounds.split_last()) else {
            return Ok(Vec::new());
        };
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let rows: Vec<PeriodSumsRow> = sqlx::query_as(include_str!("../../queries/events/sums.sql"))
                    .bind(query.user_id.as_ref().map(UserId::as_str))
                    .bind(starts.1)
                    .bind(first)
                    .bind(last)
                    .bind(query.event_type.map(EventType::as_str))
                    .fetch_all(&mut *session)
                    .traced("SELECT events_raw sums")
                    .await?;
                session.release();
                rows.into_iter().map(PeriodSums::try_from).collect()
            })
            .await
    }

    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        self.postgres.complete_through(Self::SERVICE).await
    }
}

/// Totals of a period, by its position in the query.
#[derive(Debug, FromRow)]
struct PeriodSumsRow {
    period: i32,
    #[sqlx(flatten)]
    totals: TotalsRow,
}

impl TryFrom<PeriodSumsRow> for PeriodSums {
    type Error = PgError;

    fn try_from(row: PeriodSumsRow) -> Result<Self, PgError> {
        Ok(Self {
            period: usize::try_from(row.period).map_err(|error| PgError::unreadable("a period", error))?,
            event_type: row.totals.event_type()?,
            totals: row.totals.totals()?,
        })
    }
}

/// Records the dropped copies in `event_conflict`, for the audit.
async fn note_conflicts(
    connection: &mut PgConnection,
    conflicts: &[Conflict],
    batch: &Batch<IdentifiedEvent>,
) -> Result<(), PgError> {
    let mut noted: Vec<(&Conflict, &EventFields)> = conflicts
        .iter()
        .filter_map(|conflict| {
            // Any copy of the identity can be used: all copies have the same source_id and event_id.
            let at = batch.items().binary_search_by_key(&conflict.dropped.key, |item| item.identity.key).ok()?;
            Some((conflict, batch.items()[at].event.fields()))
        })
        .collect();
    if noted.is_empty() {
        return Ok(());
    }
    // All writers use this order, so that they never deadlock.
    noted.sort_by_key(|(conflict, _)| (conflict.dropped.key, conflict.dropped.content.to_i64()));
    let conflicts = || noted.iter().map(|(conflict, _)| *conflict);
    let positions = || conflicts().map(|conflict| conflict.position.as_ref());
    sqlx::query(include_str!("../../queries/events/conflict_add.sql"))
        .bind(conflicts().map(|conflict| Uuid::from_bytes(conflict.kept.key.to_bytes())).collect::<Vec<_>>())
        .bind(noted.iter().map(|(_, fields)| fields.source_id.as_str()).collect::<Vec<_>>())
        .bind(noted.iter().map(|(_, fields)| fields.event_id).collect::<Vec<_>>())
        .bind(conflicts().map(|conflict| conflict.kept.content.to_i64()).collect::<Vec<_>>())
        .bind(conflicts().map(|conflict| conflict.kept.day.to_date()).collect::<Vec<_>>())
        .bind(conflicts().map(|conflict| conflict.dropped.content.to_i64()).collect::<Vec<_>>())
        .bind(conflicts().map(|conflict| conflict.dropped.day.to_date()).collect::<Vec<_>>())
        .bind(positions().map(|position| position.map(|position| &*position.partition.topic)).collect::<Vec<_>>())
        .bind(positions().map(|position| position.map(|position| position.partition.number)).collect::<Vec<_>>())
        .bind(positions().map(|position| position.map(|position| position.offset)).collect::<Vec<_>>())
        .execute(connection)
        .traced("INSERT event_conflict")
        .await?;
    Ok(())
}

fn encode(row: &mut Row<'_>, event: &Event) {
    let fields = event.fields();
    row.text(fields.source_id.as_str());
    row.bytes(fields.event_id.as_bytes());
    row.text(fields.user_id.as_str());
    row.text(fields.event_type.as_str());
    row.timestamptz(fields.started_at);
    row.optional(fields.ended_at, Row::timestamptz);
    // The numbers of a valid event fit: MAX_DURATION_SEC and MAX_BYTES are the bounds of the columns.
    row.optional(fields.duration_sec, |row, seconds| row.int4(seconds as i32));
    row.int8(fields.bytes_up as i64);
    row.int8(fields.bytes_down as i64);
    row.optional(fields.meta.as_ref(), |row, meta| row.jsonb(meta.as_json()));
}

/// An event of a user's timeline.
#[derive(Debug, FromRow)]
struct EventRow<'r> {
    event_id: Uuid,
    source_id: &'r str,
    #[sqlx(rename = "type")]
    event_type: &'r str,
    started_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    duration_sec: Option<i32>,
    bytes_up: i64,
    bytes_down: i64,
    meta: Option<&'r str>,
}

impl EventRow<'_> {
    fn decode(self, user_id: &UserId) -> Result<Event, PgError> {
        let timestamp =
            |at: DateTime<Utc>| Timestamp::try_from(at).map_err(|error| PgError::unreadable("a time", error));
        let meta = self.meta.map(Meta::parse).transpose();
        let fields = EventFields {
            event_id: self.event_id,
            source_id: SourceId::new(self.source_id).map_err(|error| PgError::unreadable("a source_id", error))?,
            user_id: user_id.clone(),
            event_type: rows::event_type(self.event_type)?,
            started_at: timestamp(self.started_at)?,
            ended_at: self.ended_at.map(timestamp).transpose()?,
            duration_sec: self.duration_sec.map(rows::seconds).transpose()?,
            bytes_up: rows::number_of_bytes(self.bytes_up)?,
            bytes_down: rows::number_of_bytes(self.bytes_down)?,
            meta: meta.map_err(|error| PgError::unreadable("meta", error))?,
        };
        Event::new(fields).map_err(|error| PgError::unreadable("an event", error))
    }
}
