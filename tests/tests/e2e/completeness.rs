//! Totals have the instant up to which they are complete, and this instant is never too late.

use std::time::Duration;

use netagg_core::Timestamp;
use netagg_core::ports::{Clock, SystemClock};
use netagg_testkit::eventually;

use super::installation::{Installation, PATIENCE};

const RANGE: &str = "granularity=DAY&from=2020-01-01&to=2029-12-28";

/// The number of events in the totals of the API, and the instant up to which these totals are complete.
async fn totals(installation: &Installation, tz: &str) -> Result<(i64, Option<Timestamp>), String> {
    // For time zones other than UTC, the API computes totals from the events, for at most a quarter of a year.
    let now = SystemClock.now().day();
    let (from, to) = (now.saturating_add_days(-90), now.saturating_add_days(1));
    let quarter = format!("granularity=DAY&from={from}&to={to}");
    let query = if tz == "UTC" { RANGE.to_owned() } else { format!("{quarter}&tz={tz}") };
    let (status, answer) = installation.api(&format!("/api/v1/aggregates?{query}")).await?;
    if status != 200 {
        return Err(answer.to_string());
    }
    let through = answer["complete_through"].as_str().map(|text| text.parse().expect("a time"));
    let rows = answer["data"].as_array().into_iter().flatten();
    Ok((rows.filter_map(|row| row["count_events"].as_i64()).sum(), through))
}

/// Waits until the totals are complete up to `instant`. Returns the number of events in them.
async fn complete(installation: &Installation, tz: &str, instant: Timestamp) -> i64 {
    eventually(PATIENCE, &format!("complete through {instant} in {tz}"), async || {
        let (count, through) = totals(installation, tz).await?;
        if through >= Some(instant) { Ok(count) } else { Err(format!("{count} through {through:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_have_the_instant_up_to_which_they_are_complete() {
    let installation = Installation::new().await;
    let _others = ["ingestor", "api"].map(|name| installation.start(name));
    let mut aggregator = installation.start("aggregator");
    for service in ["ingestor", "aggregator", "api"] {
        installation.readiness(service, 200).await;
    }
    let sent = installation.load().await;
    let first = SystemClock.now();
    assert_eq!(complete(&installation, "UTC", first).await, sent);
    // The instant also advances while no events arrive.
    complete(&installation, "UTC", SystemClock.now()).await;

    // Without an aggregator, the instant of the totals does not advance, although the ingestor stores more events.
    aggregator.terminate();
    assert_eq!(aggregator.code(Duration::from_secs(30)).await, 0);
    let stopped = SystemClock.now();
    let sent = sent + installation.load().await;
    let second = SystemClock.now();
    complete(&installation, "Asia/Kathmandu", second).await;
    let (counted, through) = totals(&installation, "UTC").await.expect("a response");
    assert!(counted < sent && through < Some(stopped), "{counted} of {sent} through {through:?}");

    let _aggregator = installation.start("aggregator");
    assert_eq!(complete(&installation, "UTC", second).await, sent);
}
