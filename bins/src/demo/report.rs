//! The report of the demonstration.

use std::collections::BTreeMap;
use std::time::Duration;

use netagg_core::load::{MemoryPipeline, Mismatch, Published};
use netagg_core::usage::{AggregatesRequest, UsageService};
use netagg_core::{AggregateRow, BoxError, Day, EventType, Granularity, Totals, Zone};

use crate::Failure;
use crate::config::ApiAddresses;
use crate::process::outln;
use crate::tables::{right_align, table};

/// The largest number of days to show.
const DAYS_SHOWN: usize = 10;

pub(super) async fn print(
    pipeline: &MemoryPipeline,
    usage: &UsageService,
    published: &Published,
    left_out: u64,
    mismatches: &[Mismatch],
    elapsed: Duration,
) -> Result<(), Failure> {
    let (days, ingested) = (pipeline.events.sum_by_day(), pipeline.ingested());
    if let (Some((first, _)), Some((last, _))) = (days.keys().next(), days.keys().next_back()) {
        for granularity in [Granularity::Day, Granularity::Month] {
            // If the range is longer than a request may ask for, the request asks for the last days of the range.
            let from = (*first).max(last.saturating_add_days(1 - i64::from(netagg_core::usage::MAX_DAYS)));
            let request =
                AggregatesRequest { granularity, from: Some(from), to: Some(*last), event_type: None, zone: Zone::UTC };
            print_table(granularity, &usage.aggregates(request).await.map_err(BoxError::from)?.rows);
        }
    }

    let seconds = elapsed.as_secs_f64();
    outln!(
        "{} messages in {seconds:.2} s ({:.0}/s): {} events stored, {} duplicates dropped{}, {} invalid messages sent to \
         the dead letters.",
        published.records,
        published.records as f64 / seconds,
        ingested.new,
        ingested.duplicates,
        match ingested.conflicts {
            0 => String::new(),
            conflicts => format!(", {conflicts} conflicts dropped (copies with other content)"),
        },
        ingested.invalid,
    );
    if left_out > 0 {
        outln!("{left_out} lines hold no valid event and were left out; the reasons are listed above.");
    }
    if mismatches.is_empty() {
        outln!("Verified: every event sent is stored once, and every total is the sum over the stored events.");
    } else {
        outln!("VERIFICATION FAILED:");
        for mismatch in mismatches {
            outln!("  - {mismatch}");
        }
    }
    Ok(())
}

fn print_table(granularity: Granularity, rows: &[AggregateRow]) {
    let mut by_date = BTreeMap::<Day, (BTreeMap<EventType, u64>, Totals)>::new();
    for row in rows {
        let (types, sum) = by_date.entry(row.date).or_default();
        types.insert(row.event_type, row.totals.count_events);
        *sum += row.totals;
    }
    let (title, label): (_, fn(Day) -> String) = match granularity {
        Granularity::Day => ("day", |day| day.to_string()),
        Granularity::Month => ("month", |day| day.month().to_string()),
    };
    let types = EventType::ALL.iter().map(|event_type| event_type.as_str());
    let mut table = table([title].into_iter().chain(types).chain(["events", "hours", "GB up", "GB down"]));
    let hidden = by_date.len().saturating_sub(DAYS_SHOWN);
    for (date, (types, sum)) in by_date.into_iter().skip(hidden) {
        let counts = EventType::ALL.iter().map(|event_type| types.get(event_type).copied().unwrap_or(0).to_string());
        let gigabytes = |bytes: u128| format!("{:.2}", bytes as f64 / 1e9);
        let sums = [
            sum.count_events.to_string(),
            format!("{:.1}", sum.sum_duration as f64 / 3_600.0),
            gigabytes(sum.sum_bytes_up),
            gigabytes(sum.sum_bytes_down),
        ];
        table.add_row([label(date)].into_iter().chain(counts).chain(sums));
    }
    right_align(&mut table, 1..);
    outln!("{table}");
    if hidden > 0 {
        outln!("  (and {hidden} earlier {title}s)");
    }
    outln!();
}

pub(super) fn print_serving(addresses: &ApiAddresses, has_page: bool) {
    let (http, grpc) = (addresses.http, addresses.grpc);
    outln!("\nThe API is running, and the demonstration keeps sending events. Ctrl-C stops it.");
    outln!(
        "Try in another terminal:
  curl 'http://{http}/api/v1/aggregates?granularity=DAY'
  curl 'http://{http}/api/v1/users/100000001/detail?limit=3'
  grpcurl -plaintext -d '{{\"granularity\":\"MONTH\"}}' {grpc} telecom.v1.UsageService/GetGlobalAgg"
    );
    if has_page {
        outln!("Open in a browser, for charts, tables and the timeline of a user such as 100000001:\n  http://{http}/");
    }
}

pub(super) fn print_next(is_generated: bool) {
    // The build of the demonstration alone is started through cargo.
    let program = if cfg!(feature = "services") { "netagg" } else { "cargo" };
    outln!("\nNext:");
    outln!(
        "  {program} demo --serve                 keep the API running on :8000 (HTTP) and :9090 (gRPC), and keep sending events"
    );
    if is_generated {
        outln!("  {program} demo --input FILE.ndjson     use events of your own, one JSON object per line");
    }
    outln!(
        "  {program} demo --mode combined         one service stores and counts; docs/modes.md says when to choose it"
    );
    outln!("  README.md, \"Run it for real\"        with Kafka or Redpanda, PostgreSQL and Redis");
}
