//! Answers as JSON, with the contract's names and order.

use netagg_core::usage::{AggregatesAnswer, DetailPage, UserAggregatesAnswer};
use netagg_core::{AggregateRow, Event, Meta, Timestamp, UserId};
use serde::{Serialize, Serializer};

#[derive(Serialize)]
pub(super) struct DetailBody<'a> {
    user_id: &'a UserId,
    from: Timestamp,
    to: Timestamp,
    items: Vec<Item<'a>>,
    next_cursor: Option<&'a str>,
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

#[derive(Serialize)]
struct Item<'a> {
    event_id: String,
    r#type: &'static str,
    started_at: Timestamp,
    ended_at: Option<Timestamp>,
    duration_sec: Option<u32>,
    bytes_up: u64,
    bytes_down: u64,
    #[serde(serialize_with = "object")]
    meta: Option<&'a Meta>,
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

#[derive(Serialize)]
pub(super) struct UserAggregatesBody<'a> {
    user_id: &'a UserId,
    #[serde(flatten)]
    totals: AggregatesBody<'a>,
}

impl<'a> From<&'a UserAggregatesAnswer> for UserAggregatesBody<'a> {
    fn from(answer: &'a UserAggregatesAnswer) -> Self {
        Self { user_id: &answer.user_id, totals: AggregatesBody::from(&answer.totals) }
    }
}

#[derive(Serialize)]
pub(super) struct AggregatesBody<'a> {
    granularity: &'static str,
    from: String,
    to: String,
    tz: &'a str,
    complete_through: Option<Timestamp>,
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

#[derive(Serialize)]
struct Row {
    date: String,
    r#type: &'static str,
    count_events: u64,
    sum_duration: u64,
    sum_bytes_up: u128,
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
