//! The fragment with the totals of all users: a chart and a table.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use netagg_core::usage::{AggregatesAnswer, InvalidQuery, Periods};
use netagg_core::{Day, EventType, Granularity, Totals};

use super::chart::{self, Column};
use super::measure::Measure;
use super::{html, numbers};
use crate::auth::Principal;
use crate::handlers::{HandlerError, Handlers};
use crate::http::etag::Tagged;
use crate::http::problem::Problem;
use crate::http::query;
use crate::http::state::TotalsCache;
use crate::parameters::{Parameters, Wrong};

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
    let periods = Periods::new(answer.granularity, answer.from, answer.to, &answer.zone);
    let found = periods.iter().count();
    if found > MAX_ROWS {
        let period = period(answer.granularity);
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
    for (date, instants) in periods.iter() {
        let of_types = totals.get(&date).copied().unwrap_or_default();
        let label = match answer.granularity {
            Granularity::Day => date.to_string(),
            Granularity::Month => date.month().to_string(),
        };
        let is_complete = answer.complete_through >= Some(instants.end);
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
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        text.parse().ok().filter(|width| (240..=1_600).contains(width)).map(Self).ok_or(Wrong)
    }
}

#[cfg(test)]
mod tests {
    use netagg_core::AggregateRow;

    use super::*;

    /// The rows of the table, newest first: the cells of each row, separated by spaces.
    fn rows(answer: &AggregatesAnswer) -> Vec<String> {
        let fragment = render(answer, Measure::Events, 960).expect("a fragment");
        let response = fragment.respond(&HeaderMap::new());
        let body = futures::executor::block_on(axum::body::to_bytes(response.into_body(), 1 << 20)).expect("a body");
        let html = String::from_utf8(body.to_vec()).expect("UTF-8");
        let (_, body) = html.split_once("<tbody>").expect("a table");
        let row = |line: &str| {
            line.replace("</t", " </t").split('<').filter_map(|tag| Some(tag.split_once('>')?.1)).collect()
        };
        body.lines().filter(|line| line.starts_with("<tr>")).map(row).map(|row: String| row.trim().to_owned()).collect()
    }

    #[test]
    fn each_day_of_the_zone_has_a_row_which_says_whether_it_is_complete() {
        let day = |text: &str| text.parse::<Day>().expect("a day");
        let row = |date, event_type, count_events| AggregateRow {
            date: day(date),
            event_type,
            totals: Totals { count_events, ..Totals::default() },
        };
        let mut answer = AggregatesAnswer {
            granularity: Granularity::Day,
            from: day("2011-12-28"),
            to: day("2012-01-01"),
            zone: "Pacific/Apia".parse().expect("a zone"),
            // The end of the 29th in this zone, which has no 30th.
            complete_through: Some("2011-12-30T10:00:00Z".parse().expect("a time")),
            rows: vec![row("2011-12-29", EventType::CallIn, 3), row("2011-12-31", EventType::Data, 1_234)],
        };
        let expected = [
            "2012-01-01 0 0 0 0 0 0 not yet",
            "2011-12-31 0 0 0 0 1,234 1,234 not yet",
            "2011-12-29 0 3 0 0 0 3 yes",
            "2011-12-28 0 0 0 0 0 0 yes",
        ];
        assert_eq!(rows(&answer), expected);

        answer.complete_through = Some("2011-12-30T09:59:59Z".parse().expect("a time"));
        assert!(rows(&answer)[2].ends_with("not yet"), "one second of the 29th is missing");
        answer.complete_through = None;
        assert!(rows(&answer).iter().all(|row| row.ends_with("not yet")));
        (answer.granularity, answer.rows) = (Granularity::Month, vec![row("2011-12-01", EventType::Data, 5)]);
        assert_eq!(rows(&answer), ["2012-01 0 0 0 0 0 0 not yet", "2011-12 0 0 0 0 5 5 not yet"]);
        (answer.granularity, answer.rows) = (Granularity::Day, Vec::new());
        (answer.from, answer.to) = (day("2011-12-30"), day("2011-12-30"));
        assert!(rows(&answer).is_empty(), "the zone has no such day");
    }
}
