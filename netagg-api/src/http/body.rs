//! The JSON bodies of responses, with the field names and the order of the API contract.

use netagg_core::usage::{AggregatesAnswer, DetailPage, UserAggregatesAnswer};
use netagg_core::{AggregateRow, Event, Meta, Timestamp, UserId};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::openapi::{EventTypeName, GranularityName};

/// A page of a user's events.
#[derive(Serialize, ToSchema)]
#[schema(as = GetUserDetailResponse)]
pub(super) struct DetailBody<'a> {
    /// The requested user.
    #[schema(value_type = str)]
    user_id: &'a UserId,
    /// The start of the range, inclusive.
    #[schema(value_type = str, format = DateTime)]
    from: Timestamp,
    /// The end of the range, exclusive.
    #[schema(value_type = str, format = DateTime)]
    to: Timestamp,
    /// The events, newest first. Events of the same instant are ordered by `source_id`, then by `event_id`. A page has fewer
    /// than `limit` events if they would take more than about 4 MiB.
    items: Vec<Item<'a>>,
    /// The cursor of the next page. Only null marks the end: a page with fewer than `limit` events may have a next page.
    #[schema(required)]
    next_cursor: Option<&'a str>,
    /// The number of events of the whole range and type, not only of this page.
    total_count: u64,
}

impl<'a> From<&'a DetailPage> for DetailBody<'a> {
    fn from(page: &'a DetailPage) -> Self {
        Self {
            user_id: &page.user_id,
            from: page.from,
            to: page.to,
            items: page.items.iter().map(Item::from).collect(),
            next_cursor: page.next_cursor.as_deref(),
            total_count: page.total_count,
        }
    }
}

/// A usage event as it was stored.
#[derive(Serialize, ToSchema)]
#[schema(as = UsageEvent)]
struct Item<'a> {
    /// The provider's id of the event, unique within `source_id`.
    #[schema(format = "uuid")]
    event_id: String,
    #[schema(value_type = EventTypeName, inline)]
    r#type: &'static str,
    /// When the usage began.
    #[schema(value_type = str, format = DateTime)]
    started_at: Timestamp,
    /// When the usage ended, if known.
    #[schema(value_type = Option<str>, format = DateTime, required)]
    ended_at: Option<Timestamp>,
    /// The duration in seconds, if known.
    #[schema(required)]
    duration_sec: Option<u32>,
    /// The bytes that the user sent.
    bytes_up: u64,
    /// The bytes that the user received.
    bytes_down: u64,
    /// Further data of the provider. An empty object if there is none.
    #[serde(serialize_with = "object")]
    #[schema(value_type = Object)]
    meta: Option<&'a Meta>,
    /// The provider of the event.
    source_id: &'a str,
}

impl<'a> From<&'a Event> for Item<'a> {
    fn from(event: &'a Event) -> Self {
        let fields = event.fields();
        Self {
            event_id: fields.event_id.to_string(),
            r#type: fields.event_type.as_str(),
            started_at: fields.started_at,
            ended_at: fields.ended_at,
            duration_sec: fields.duration_sec,
            bytes_up: fields.bytes_up,
            bytes_down: fields.bytes_down,
            meta: fields.meta.as_ref(),
            source_id: fields.source_id.as_str(),
        }
    }
}

/// Writes the object with every digit as the provider sent it, or `{}` for `None`.
fn object<S: Serializer>(meta: &Option<&Meta>, serializer: S) -> Result<S::Ok, S::Error> {
    match meta {
        Some(meta) => meta.serialize(serializer),
        None => serializer.collect_map(std::iter::empty::<((), ())>()),
    }
}

/// A user's totals of a range, computed from the user's stored events.
#[derive(Serialize, ToSchema)]
#[schema(as = GetUserAggResponse)]
pub(super) struct UserAggregatesBody<'a> {
    /// The requested user.
    #[schema(value_type = str)]
    user_id: &'a UserId,
    #[serde(flatten)]
    totals: AggregatesBody<'a>,
}

impl<'a> From<&'a UserAggregatesAnswer> for UserAggregatesBody<'a> {
    fn from(answer: &'a UserAggregatesAnswer) -> Self {
        Self { user_id: &answer.user_id, totals: AggregatesBody::from(&answer.totals) }
    }
}

/// Totals of a range.
#[derive(Serialize, ToSchema)]
#[schema(as = GetGlobalAggResponse)]
pub(super) struct AggregatesBody<'a> {
    #[schema(value_type = GranularityName, inline)]
    granularity: &'static str,
    /// The first date.
    #[schema(format = Date)]
    from: String,
    /// The last date.
    #[schema(format = Date)]
    to: String,
    /// The time zone of the days and months.
    tz: &'a str,
    /// The totals contain every event that the broker held at this instant. They may also contain later events. Null while no
    /// such instant is known.
    #[schema(value_type = Option<str>, format = DateTime, required)]
    complete_through: Option<Timestamp>,
    /// The totals, ordered by date, then by type. There are rows only for dates and types with events.
    data: Vec<Row>,
}

impl<'a> From<&'a AggregatesAnswer> for AggregatesBody<'a> {
    fn from(answer: &'a AggregatesAnswer) -> Self {
        Self {
            granularity: answer.granularity.as_str(),
            from: answer.from.to_string(),
            to: answer.to.to_string(),
            tz: answer.zone.name(),
            complete_through: answer.complete_through,
            data: answer.rows.iter().map(Row::from).collect(),
        }
    }
}

/// The totals of one type in one day or month (by `started_at`). Sums are exact, also beyond 64 bits.
#[derive(Serialize, ToSchema)]
#[schema(as = AggregateRow)]
struct Row {
    /// The day, or the first day of the month.
    #[schema(format = Date)]
    date: String,
    #[schema(value_type = EventTypeName, inline)]
    r#type: &'static str,
    /// The number of events.
    count_events: u64,
    /// The sum of durations in seconds. An event without a duration adds 0.
    sum_duration: u64,
    /// The sum of bytes that users sent.
    sum_bytes_up: u128,
    /// The sum of bytes that users received.
    sum_bytes_down: u128,
}

impl From<&AggregateRow> for Row {
    fn from(row: &AggregateRow) -> Self {
        Self {
            date: row.date.to_string(),
            r#type: row.event_type.as_str(),
            count_events: row.totals.count_events,
            sum_duration: row.totals.sum_duration,
            sum_bytes_up: row.totals.sum_bytes_up,
            sum_bytes_down: row.totals.sum_bytes_down,
        }
    }
}
