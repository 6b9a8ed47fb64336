//! Answers as JSON, with the contract's names and order.

use netagg_core::usage::{AggregatesAnswer, DetailPage, UserAggregatesAnswer};
use netagg_core::{AggregateRow, Event, Meta, Timestamp, UserId};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::openapi::{EventTypeName, GranularityName};

/// A page of a user's events.
#[derive(Serialize, ToSchema)]
#[schema(as = GetUserDetailResponse)]
pub(super) struct DetailBody<'a> {
    /// The user asked for.
    #[schema(value_type = str)]
    user_id: &'a UserId,
    /// The range's start, inclusive.
    #[schema(value_type = str, format = DateTime)]
    from: Timestamp,
    /// The range's end, exclusive.
    #[schema(value_type = str, format = DateTime)]
    to: Timestamp,
    /// The events, newest first; those of one instant by `source_id`, then `event_id`. Fewer than `limit` when they
    /// would take more than about 4 MiB.
    items: Vec<Item<'a>>,
    /// Continues after this page, however many events it has. Null at the end.
    #[schema(required)]
    next_cursor: Option<&'a str>,
    /// How many events the whole range and type have, whatever the page.
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
    /// The provider's number for it; unique within `source_id`.
    #[schema(format = "uuid")]
    event_id: String,
    #[schema(value_type = EventTypeName, inline)]
    r#type: &'static str,
    /// When it began.
    #[schema(value_type = str, format = DateTime)]
    started_at: Timestamp,
    /// When it ended, if known.
    #[schema(value_type = Option<str>, format = DateTime, required)]
    ended_at: Option<Timestamp>,
    /// Seconds, if known.
    #[schema(required)]
    duration_sec: Option<u32>,
    /// Bytes sent by the user.
    bytes_up: u64,
    /// Bytes received by the user.
    bytes_down: u64,
    /// What else the provider says; empty if nothing.
    #[serde(serialize_with = "object")]
    #[schema(value_type = Object)]
    meta: Option<&'a Meta>,
    /// The provider.
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

/// The object as it was given, every digit of it; `{}` for none.
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
    /// The user asked for.
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
    /// Whose days and months these are.
    tz: &'a str,
    /// Every event that the broker held at this instant is in the totals, and maybe later ones. Null while no such
    /// instant is known.
    #[schema(value_type = Option<str>, format = DateTime, required)]
    complete_through: Option<Timestamp>,
    /// The totals by date, then type; only where there are events.
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
    /// How many events.
    count_events: u64,
    /// Seconds; an event without a duration adds none.
    sum_duration: u64,
    /// Bytes sent by users.
    sum_bytes_up: u128,
    /// Bytes received by users.
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
