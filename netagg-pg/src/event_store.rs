//! `events_raw`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use netagg_core::crash::{self, CrashPoint};
use netagg_core::ports::{EventStore, PeriodSums, SumsQuery, TimelineFilter, TimelineQuery};
use netagg_core::{
    Batch, BatchOutcome, Conflict, Error, Event, EventFields, EventType, IdentifiedEvent, Meta, Month, SourceId,
    Timestamp, UserId,
};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::copy::{Row, copy_in};
use crate::error::{CHECK_VIOLATION, PgError};
use crate::ledger::Ledger;
use crate::partitions::{Partitions, WithoutPartition};
use crate::postgres::Postgres;
use crate::{progress, totals};

const COPY_EVENTS: &str = "COPY events_raw (source_id, event_id, user_id, type, started_at, ended_at, duration_sec, \
                           bytes_up, bytes_down, meta) FROM STDIN (FORMAT binary)";

const COPY_ASIDE: &str = "COPY events_set_aside (source_id, event_id, user_id, type, started_at, ended_at, duration_sec, \
                          bytes_up, bytes_down, meta) FROM STDIN (FORMAT binary)";

/// Keeps events in `events_raw`, which it partitions by month as they come.
#[derive(Debug)]
pub struct PgEventStore {
    postgres: Postgres,
    partitions: Partitions,
    ledger: Ledger,
}

impl PgEventStore {
    /// The service in `consumer_progress`.
    pub const SERVICE: &str = "ingestor";

    /// The events of `postgres`.
    pub fn new(postgres: Postgres) -> Self {
        Self { partitions: postgres.partitions(), postgres, ledger: Ledger::of_events() }
    }

    /// For each of `events`, how many copies are stored of its identity, for its user and at its time: for whoever
    /// verifies that it is one.
    ///
    /// # Errors
    /// Retryable while the store cannot be read.
    pub async fn count_copies(&self, events: &[Event]) -> Result<Vec<u64>, Error> {
        let fields = || events.iter().map(Event::fields);
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let found: Vec<(i64, i64)> = sqlx::query_as(include_str!("../queries/copies.sql"))
                    .bind(fields().map(|fields| fields.user_id.as_str()).collect::<Vec<_>>())
                    .bind(fields().map(|fields| fields.started_at.to_datetime()).collect::<Vec<_>>())
                    .bind(fields().map(|fields| fields.source_id.as_str()).collect::<Vec<_>>())
                    .bind(fields().map(|fields| fields.event_id).collect::<Vec<_>>())
                    .fetch_all(&mut *session)
                    .await?;
                session.release();
                let found: HashMap<_, _> = found.into_iter().collect();
                Ok((0..events.len() as i64).map(|at| found.get(&at).map_or(0, |count| count.unsigned_abs())).collect())
            })
            .await
    }

    /// Stores the events that are new. An event that has no place in `events_raw` is set aside.
    async fn try_store(
        &self,
        batch: &Batch<IdentifiedEvent>,
        without_partition: &BTreeMap<Month, Arc<WithoutPartition>>,
    ) -> Result<BatchOutcome, PgError> {
        let mut session = self.postgres.writing_session().await?;
        let admission = self.ledger.admit(&mut session, batch).await?;
        if admission.outcome.new > 0 {
            let has_place = |item: &&IdentifiedEvent| {
                let problem = without_partition.get(&item.identity.day.month());
                problem.is_none_or(|problem| problem.has_room(item.event.fields().started_at))
            };
            let events = admission.new_items(batch).filter(has_place);
            let stored = copy_in(&mut session, COPY_EVENTS, 10, events, |row, item| encode(row, &item.event)).await?;
            if stored < admission.outcome.new {
                let others = admission.new_items(batch).filter(|item| !has_place(item));
                copy_in(&mut session, COPY_ASIDE, 10, others, |row, item| encode(row, &item.event)).await?;
            }
            crash::pass(CrashPoint::EventsCopied);
        }
        note_conflicts(&mut session, &admission.outcome.conflicts, batch).await?;
        progress::commit(&mut session, Self::SERVICE, batch.spans(), &admission.outcome.tallies).await?;
        session.release();
        Ok(admission.outcome)
    }
}

#[async_trait]
impl EventStore for PgEventStore {
    async fn store(&self, batch: &Batch<IdentifiedEvent>) -> Result<BatchOutcome, Error> {
        self.postgres
            .call(async {
                let months = || batch.items().iter().map(|item| item.identity.day.month());
                let ensured = self.partitions.ensure_for(months()).await?;
                match self.try_store(batch, &ensured.without_partition).await {
                    // A partition that was here before has been dropped or detached.
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
                let mut rows = sqlx::query(include_str!("../queries/timeline.sql"))
                    .bind(filter.user_id.as_str())
                    .bind(filter.from.to_datetime())
                    .bind(filter.to.to_datetime())
                    .bind(filter.event_type.map(EventType::as_str))
                    .bind(after.as_ref().map(|after| after.started_at.to_datetime()))
                    .bind(after.as_ref().map(|after| after.source_id.as_str()))
                    .bind(after.as_ref().map(|after| after.event_id))
                    .bind(i64::from(*limit))
                    .fetch(&mut *session);
                let (mut events, mut bytes) = (Vec::new(), 0);
                while let Some(row) = rows.try_next().await? {
                    let event = decode(&row, &filter.user_id)?;
                    bytes += event.size();
                    events.push(event);
                    if bytes > *max_bytes {
                        // The server has more to send: the connection, dropped before it is released, closes on it.
                        return Ok(events);
                    }
                }
                drop(rows);
                session.release();
                Ok(events)
            })
            .await
    }

    async fn count(&self, filter: &TimelineFilter) -> Result<u64, Error> {
        self.postgres
            .call(async {
                let mut session = self.postgres.session().await?;
                let count: i64 = sqlx::query_scalar(include_str!("../queries/timeline_count.sql"))
                    .bind(filter.user_id.as_str())
                    .bind(filter.from.to_datetime())
                    .bind(filter.to.to_datetime())
                    .bind(filter.event_type.map(EventType::as_str))
                    .fetch_one(&mut *session)
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
                let rows: Vec<SumsRow> = sqlx::query_as(include_str!("../queries/sums.sql"))
                    .bind(query.user_id.as_ref().map(UserId::as_str))
                    .bind(starts.1)
                    .bind(first)
                    .bind(last)
                    .bind(query.event_type.map(EventType::as_str))
                    .fetch_all(&mut *session)
                    .await?;
                session.release();
                rows.into_iter().map(decode_sums).collect()
            })
            .await
    }

    async fn complete_through(&self) -> Result<Option<Timestamp>, Error> {
        self.postgres.complete_through(Self::SERVICE).await
    }
}

/// Period, type, count, seconds, bytes up and down.
type SumsRow = (i32, String, i64, i64, String, String);

fn decode_sums((period, event_type, count, duration, up, down): SumsRow) -> Result<PeriodSums, PgError> {
    Ok(PeriodSums {
        period: usize::try_from(period).map_err(|error| PgError::unreadable("a period", error))?,
        event_type: totals::event_type(&event_type)?,
        totals: totals::decode(count, duration, &up, &down)?,
    })
}

/// Lists the dropped copies for whoever asks what was dropped.
async fn note_conflicts(
    connection: &mut PgConnection,
    conflicts: &[Conflict],
    batch: &Batch<IdentifiedEvent>,
) -> Result<(), PgError> {
    let mut noted: Vec<(&Conflict, &EventFields)> = conflicts
        .iter()
        .filter_map(|conflict| {
            // Of whichever copy: those of one identity have its source_id and event_id.
            let at = batch.items().binary_search_by_key(&conflict.dropped.key, |item| item.identity.key).ok()?;
            Some((conflict, batch.items()[at].event.fields()))
        })
        .collect();
    if noted.is_empty() {
        return Ok(());
    }
    // Concurrent writers of one list wait for each other and never deadlock.
    noted.sort_by_key(|(conflict, _)| (conflict.dropped.key, conflict.dropped.content.to_i64()));
    let conflicts = || noted.iter().map(|(conflict, _)| *conflict);
    let places = || conflicts().map(|conflict| conflict.place.as_ref());
    sqlx::query(include_str!("../queries/event_conflict_add.sql"))
        .bind(conflicts().map(|conflict| Uuid::from_bytes(conflict.kept.key.to_bytes())).collect::<Vec<_>>())
        .bind(noted.iter().map(|(_, fields)| fields.source_id.as_str()).collect::<Vec<_>>())
        .bind(noted.iter().map(|(_, fields)| fields.event_id).collect::<Vec<_>>())
        .bind(conflicts().map(|conflict| conflict.kept.content.to_i64()).collect::<Vec<_>>())
        .bind(conflicts().map(|conflict| conflict.kept.day.to_date()).collect::<Vec<_>>())
        .bind(conflicts().map(|conflict| conflict.dropped.content.to_i64()).collect::<Vec<_>>())
        .bind(conflicts().map(|conflict| conflict.dropped.day.to_date()).collect::<Vec<_>>())
        .bind(places().map(|place| place.map(|place| &*place.partition.topic)).collect::<Vec<_>>())
        .bind(places().map(|place| place.map(|place| place.partition.number)).collect::<Vec<_>>())
        .bind(places().map(|place| place.map(|place| place.offset)).collect::<Vec<_>>())
        .execute(connection)
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
    // An event's numbers fit: MAX_DURATION_SEC and MAX_BYTES are those of the columns.
    row.optional(fields.duration_sec, |row, seconds| row.int4(seconds as i32));
    row.int8(fields.bytes_up as i64);
    row.int8(fields.bytes_down as i64);
    row.optional(fields.meta.as_ref(), |row, meta| row.jsonb(meta.as_json()));
}

fn decode(row: &PgRow, user_id: &UserId) -> Result<Event, PgError> {
    let timestamp = |at: DateTime<Utc>| Timestamp::try_from(at).map_err(|error| PgError::unreadable("a time", error));
    let bytes = |bytes: i64| u64::try_from(bytes).map_err(|error| PgError::unreadable("a number of bytes", error));
    let fields = EventFields {
        event_id: row.try_get::<Uuid, _>(0)?,
        source_id: SourceId::new(row.try_get::<&str, _>(1)?)
            .map_err(|error| PgError::unreadable("a source_id", error))?,
        user_id: user_id.clone(),
        event_type: row
            .try_get::<&str, _>(2)?
            .parse()
            .map_err(|error: netagg_core::UnknownEventType| PgError::unreadable("a type", error))?,
        started_at: timestamp(row.try_get(3)?)?,
        ended_at: row.try_get::<Option<_>, _>(4)?.map(timestamp).transpose()?,
        duration_sec: row
            .try_get::<Option<i32>, _>(5)?
            .map(u32::try_from)
            .transpose()
            .map_err(|error| PgError::unreadable("a duration", error))?,
        bytes_up: bytes(row.try_get(6)?)?,
        bytes_down: bytes(row.try_get(7)?)?,
        meta: row
            .try_get::<Option<&str>, _>(8)?
            .map(Meta::parse)
            .transpose()
            .map_err(|error| PgError::unreadable("meta", error))?,
    };
    Event::new(fields).map_err(|error| PgError::unreadable("an event", error))
}
