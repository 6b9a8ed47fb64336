//! The fragment with a page of a user's events.

use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use netagg_core::usage::DetailPage;
use netagg_core::{Day, Event, Zone};

use super::{html, numbers};
use crate::auth::Principal;
use crate::handlers::Handlers;
use crate::http::problem::Problem;
use crate::http::query;
use crate::parameters::{DATE, Parameters};

/// The query parameters. `from` and `to` are dates in the zone `tz`, both inclusive.
const NAMES: [&str; 6] = ["user_id", "from", "to", "type", "tz", "cursor"];

/// The number of events in a page.
const PAGE: &str = "25";

#[derive(Template)]
#[template(path = "overview/timeline.html")]
struct Fragment<'a> {
    user_id: &'a str,
    from: String,
    to: String,
    zone: &'a str,
    count: String,
    next_cursor: Option<&'a str>,
    rows: Vec<Row<'a>>,
}

struct Row<'a> {
    started_at: String,
    local_start: String,
    event_type: &'static str,
    duration: String,
    bytes_up: String,
    bytes_down: String,
    source_id: &'a str,
    event_id: String,
    meta: &'a str,
}

impl<'a> Row<'a> {
    fn of(event: &'a Event, zone: &Zone) -> Self {
        let fields = event.fields();
        Self {
            started_at: fields.started_at.to_string(),
            local_start: numbers::local_time(fields.started_at, zone),
            event_type: fields.event_type.as_str(),
            duration: fields.duration_sec.map_or_else(String::new, duration),
            bytes_up: numbers::bytes(fields.bytes_up.into()),
            bytes_down: numbers::bytes(fields.bytes_down.into()),
            source_id: fields.source_id.as_str(),
            event_id: fields.event_id.to_string(),
            meta: fields.meta.as_ref().map_or("", |meta| meta.as_json()),
        }
    }
}

/// Seconds as `h:mm:ss`.
fn duration(seconds: u32) -> String {
    format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// A page of a user's events, newest first, as HTML.
pub(super) async fn fragment(
    State(handlers): State<Handlers>,
    Extension(caller): Extension<Arc<Principal>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut parameters = Parameters::of_url();
    query::read(uri.query(), &NAMES, &mut parameters);
    let zone = parameters.optional("tz", Zone::ACCEPTED).unwrap_or_default().unwrap_or(Zone::UTC);
    // A wrong date is a problem in `parameters`.
    let from = parameters.optional::<Day>("from", DATE).unwrap_or_default();
    let to = parameters.optional::<Day>("to", DATE).unwrap_or_default();
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        parameters.add_problem("from", &from.to_string(), &format!("not later than `to`, which is {to}"));
    }
    if let Some(from) = from {
        parameters.add("from", zone.start_of(from).to_string());
    }
    if let Some(to) = to {
        parameters.add("to", zone.end_of(to).to_string());
    }
    parameters.add("limit", PAGE.to_owned());
    let page = handlers.detail(&caller, parameters).await?;
    Ok(html::render(&fragment_of(&page, &zone))?.respond(&headers))
}

fn fragment_of<'a>(page: &'a DetailPage, zone: &'a Zone) -> Fragment<'a> {
    Fragment {
        user_id: page.user_id.as_str(),
        from: numbers::local_time(page.from, zone),
        to: numbers::local_time(page.to, zone),
        zone: zone.name(),
        count: numbers::grouped(page.total_count),
        next_cursor: page.next_cursor.as_deref(),
        rows: page.items.iter().map(|event| Row::of(event, zone)).collect(),
    }
}
