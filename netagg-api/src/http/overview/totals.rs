//! The fragment with the totals of all users: a chart and a table.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use netagg_core::usage::{AggregatesAnswer, InvalidQuery};
use netagg_core::{Day, EventType, Granularity, Timestamp, Totals};

use super::chart::{self, Column};
use super::measure::Measure;
use super::{html, numbers};
use crate::auth::Principal;
use crate::handlers::{HandlerError, Handlers};
use crate::http::etag::Tagged;
use crate::http::problem::Problem;
use crate::http::query;
use crate::http::state::TotalsCache;
use crate::parameters::Parameters;

/// The query parameters.
const NAMES: [&str; 7] = ["granularity", "from", "to", "type", "tz", "measure", "width"];

/// The largest number of rows. More rows are slow in a browser, and their columns are narrower than a pixel.
const MAX_ROWS: usize = 400;

const TYPES: usize = EventType::ALL.len();

#[derive(Template)]
#[template(path = "overview/totals.html")]
struct Fragment {
    period: &'static str,
    from: String,
    to: String,
    zone: String,
    /// The instant of completeness as RFC 3339 and as local time.
    complete: Option<(String, String)>,
    measure: &'static str,
    types: [EventType; TYPES],
    svg: String,
    is_empty: bool,
    rows: Vec<Row>,
    sums: [String; TYPES],
    sum: String,
}

/// A row of the table.
struct Row {
    date: String,
    amounts: [String; TYPES],
    sum: String,
    is_complete: bool,
}

/// The totals of all users by type, by day or by month, as HTML.
pub(super) async fn fragment(
    State(handlers): State<Handlers>,
    State(cache): State<TotalsCache>,
    Extension(caller): Extension<Arc<Principal>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = uri.query().unwrap_or_default();
    let mut parameters = Parameters::of_url();
    query::read(Some(query), &NAMES, &mut parameters);
    // A wrong value is a problem in `parameters`, so no fragment is made with the defaults.
    let measure = parameters.optional("measure", Measure::ACCEPTED).unwrap_or_default().unwrap_or(Measure::Events);
    let Width(width) = parameters.optional("width", Width::ACCEPTED).unwrap_or_default().unwrap_or(Width::DEFAULT);
    let encode = |answer| {
        let fragment = render(&answer, measure, width)?;
        let bytes = fragment.bytes();
        Ok::<_, HandlerError>((fragment, bytes))
    };
    // JSON of the same query is another response.
    let key = format!("overview?{query}").into();
    Ok(handlers.aggregates(&caller, &cache, key, || parameters, encode).await?.respond(&headers))
}

fn render(answer: &AggregatesAnswer, measure: Measure, width: u32) -> Result<Tagged, HandlerError> {
    let dates = dates(answer);
    if dates.len() > MAX_ROWS {
        let (found, period) = (dates.len(), period(answer.granularity));
        return Err(HandlerError::Invalid(InvalidQuery::parameter(
            "from",
            format!("a range of {found} {period}s"),
            format!("a range of at most {MAX_ROWS} {period}s on this page; choose months for a longer range"),
        )));
    }
    let mut totals = BTreeMap::<Day, [Totals; TYPES]>::new();
    let mut sums = [Totals::default(); TYPES];
    for row in &answer.rows {
        let at = row.event_type.code() as usize;
        totals.entry(row.date).or_default()[at] += row.totals;
        sums[at] += row.totals;
    }
    let sum_of = |types: &[Totals]| {
        let mut sum = Totals::default();
        types.iter().for_each(|totals| sum += *totals);
        sum
    };
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    for date in dates {
        let of_types = totals.get(&date).copied().unwrap_or_default();
        let label = match answer.granularity {
            Granularity::Day => date.to_string(),
            Granularity::Month => date.month().to_string(),
        };
        let is_complete = answer.complete_through >= Some(end(answer, date));
        columns.push(Column { label: label.clone(), amounts: of_types.map(|one| measure.value(&one)), is_complete });
        rows.push(Row {
            date: label,
            amounts: of_types.map(|one| measure.text(&one)),
            sum: measure.text(&sum_of(&of_types)),
            is_complete,
        });
    }
    // The newest row comes first, so that the changing row is visible without scrolling.
    rows.reverse();
    html::render(&Fragment {
        period: period(answer.granularity),
        from: rows.last().map(|row| row.date.clone()).unwrap_or_default(),
        to: rows.first().map(|row| row.date.clone()).unwrap_or_default(),
        zone: answer.zone.name().to_owned(),
        complete: answer.complete_through.map(|at| (at.to_string(), numbers::local_time(at, &answer.zone))),
        measure: measure.title(),
        types: EventType::ALL,
        svg: chart::draw(&columns, measure, width)?,
        is_empty: answer.rows.is_empty(),
        rows,
        sums: sums.map(|one| measure.text(&one)),
        sum: measure.text(&sum_of(&sums)),
    })
}

/// The first day of each period, in ascending order.
fn dates(answer: &AggregatesAnswer) -> Vec<Day> {
    let (first, last) = match answer.granularity {
        Granularity::Day => (answer.from, answer.to),
        Granularity::Month => (answer.from.month().first_day(), answer.to.month().first_day()),
    };
    let next = |day: &Day| Some(next(answer.granularity, *day)).filter(|next| next > day && *next <= last);
    std::iter::successors(Some(first), next).collect()
}

/// The first day of the period after the period that begins at `day`.
fn next(granularity: Granularity, day: Day) -> Day {
    match granularity {
        Granularity::Day => day.saturating_add_days(1),
        Granularity::Month => day.month().last_day().saturating_add_days(1),
    }
}

/// The end of the period that begins at `day`.
fn end(answer: &AggregatesAnswer, day: Day) -> Timestamp {
    let next = next(answer.granularity, day);
    // No day follows the last day of the calendar.
    if next > day { answer.zone.start_of(next) } else { Timestamp::MAX }
}

const fn period(granularity: Granularity) -> &'static str {
    match granularity {
        Granularity::Day => "day",
        Granularity::Month => "month",
    }
}

/// The width of the chart in pixels.
struct Width(u32);

impl Width {
    const ACCEPTED: &str = "an integer from 240 to 1600";
    const DEFAULT: Self = Self(960);
}

impl FromStr for Width {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().ok().filter(|width| (240..=1_600).contains(width)).map(Self).ok_or(())
    }
}
