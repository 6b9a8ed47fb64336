//! Converts the messages of `telecom.v1` to requests of the usage service, and its results to messages.

use std::fmt::Display;

use netagg_core::Event;
use netagg_core::usage::{AggregatesAnswer, DetailPage, UserAggregatesAnswer};
use tonic::Status;

use crate::parameters::Parameters;
use crate::proto::{
    AggregateRow, GetGlobalAggRequest, GetGlobalAggResponse, GetUserAggRequest, GetUserAggResponse,
    GetUserDetailRequest, GetUserDetailResponse, StreamUserDetailResponse, UsageEvent,
};

impl From<GetUserDetailRequest> for Parameters {
    fn from(request: GetUserDetailRequest) -> Self {
        let limit = if request.limit == 0 { String::new() } else { request.limit.to_string() };
        parameters([
            ("user_id", request.user_id),
            ("from", request.from),
            ("to", request.to),
            ("cursor", request.cursor),
            ("limit", limit),
            ("type", request.r#type),
        ])
    }
}

impl From<GetGlobalAggRequest> for Parameters {
    fn from(request: GetGlobalAggRequest) -> Self {
        parameters([
            ("granularity", request.granularity),
            ("from", request.from),
            ("to", request.to),
            ("type", request.r#type),
            ("tz", request.tz),
        ])
    }
}

impl From<GetUserAggRequest> for Parameters {
    fn from(request: GetUserAggRequest) -> Self {
        parameters([
            ("user_id", request.user_id),
            ("granularity", request.granularity),
            ("from", request.from),
            ("to", request.to),
            ("type", request.r#type),
            ("tz", request.tz),
        ])
    }
}

/// Leaves out empty fields: in proto3 an empty field means that the client set no value.
fn parameters<const N: usize>(fields: [(&'static str, String); N]) -> Parameters {
    let mut parameters = Parameters::default();
    for (name, text) in fields {
        if !text.is_empty() {
            parameters.add(name, text);
        }
    }
    parameters
}

impl TryFrom<DetailPage> for GetUserDetailResponse {
    type Error = Status;

    fn try_from(page: DetailPage) -> Result<Self, Status> {
        Ok(Self {
            user_id: page.user_id.to_string(),
            from: page.from.to_string(),
            to: page.to.to_string(),
            items: page.items.iter().map(UsageEvent::try_from).collect::<Result<_, _>>()?,
            next_cursor: page.next_cursor.unwrap_or_default(),
            total_count: integer(page.total_count, "total_count")?,
        })
    }
}

impl TryFrom<Vec<Event>> for StreamUserDetailResponse {
    type Error = Status;

    fn try_from(events: Vec<Event>) -> Result<Self, Status> {
        Ok(Self { items: events.iter().map(UsageEvent::try_from).collect::<Result<_, _>>()? })
    }
}

impl TryFrom<&Event> for UsageEvent {
    type Error = Status;

    fn try_from(event: &Event) -> Result<Self, Status> {
        let fields = event.fields();
        Ok(Self {
            event_id: fields.event_id.to_string(),
            r#type: fields.event_type.to_string(),
            started_at: fields.started_at.to_string(),
            ended_at: fields.ended_at.map(|at| at.to_string()),
            duration_sec: fields.duration_sec.map(|seconds| integer(seconds, "duration_sec")).transpose()?,
            bytes_up: integer(fields.bytes_up, "bytes_up")?,
            bytes_down: integer(fields.bytes_down, "bytes_down")?,
            meta: fields.meta.as_ref().map_or("{}", |meta| meta.as_json()).to_owned(),
            source_id: fields.source_id.to_string(),
        })
    }
}

impl TryFrom<AggregatesAnswer> for GetGlobalAggResponse {
    type Error = Status;

    fn try_from(answer: AggregatesAnswer) -> Result<Self, Status> {
        Ok(Self {
            granularity: answer.granularity.as_str().to_owned(),
            from: answer.from.to_string(),
            to: answer.to.to_string(),
            data: rows(&answer)?,
            tz: answer.zone.to_string(),
            complete_through: answer.complete_through.map(|at| at.to_string()),
        })
    }
}

impl TryFrom<UserAggregatesAnswer> for GetUserAggResponse {
    type Error = Status;

    fn try_from(answer: UserAggregatesAnswer) -> Result<Self, Status> {
        let UserAggregatesAnswer { user_id, totals } = answer;
        Ok(Self {
            user_id: user_id.to_string(),
            granularity: totals.granularity.as_str().to_owned(),
            from: totals.from.to_string(),
            to: totals.to.to_string(),
            data: rows(&totals)?,
            tz: totals.zone.to_string(),
            complete_through: totals.complete_through.map(|at| at.to_string()),
        })
    }
}

fn rows(answer: &AggregatesAnswer) -> Result<Vec<AggregateRow>, Status> {
    answer.rows.iter().map(AggregateRow::try_from).collect()
}

impl TryFrom<&netagg_core::AggregateRow> for AggregateRow {
    type Error = Status;

    fn try_from(row: &netagg_core::AggregateRow) -> Result<Self, Status> {
        let of = |sum: &str| format!("{sum} of {} on {}", row.event_type, row.date);
        Ok(Self {
            date: row.date.to_string(),
            r#type: row.event_type.to_string(),
            count_events: integer(row.totals.count_events, of("count_events"))?,
            sum_duration: integer(row.totals.sum_duration, of("sum_duration"))?,
            sum_bytes_up: integer(row.totals.sum_bytes_up, of("sum_bytes_up"))?,
            sum_bytes_down: integer(row.totals.sum_bytes_down, of("sum_bytes_down"))?,
        })
    }
}

fn integer<T, U: TryFrom<T>>(value: T, what: impl Display) -> Result<U, Status> {
    U::try_from(value).map_err(|_| Status::out_of_range(format!("{what} is beyond int64; HTTP gives it exactly")))
}
