//! The settings that all programs on a database agree on.

use std::time::Duration;

use futures::future::join_all;
use netagg_core::EventLimits;
use netagg_pg::EventLimitsError;

use super::Fresh;

#[tokio::test]
async fn the_first_program_records_the_event_limits_and_other_programs_must_have_the_same_limits() {
    let fresh = Fresh::migrated().await;
    let limits = EventLimits::default();
    assert_eq!(fresh.postgres.settings().event_limits(limits).await.unwrap(), limits);
    assert_eq!(fresh.postgres.settings().event_limits(limits).await.unwrap(), limits);

    let other = EventLimits { max_age: Duration::from_millis(1_500), ..limits };
    let error = fresh.postgres.settings().event_limits(other).await.unwrap_err();
    assert!(
        matches!(&error, EventLimitsError::Differ { recorded, configured } if *recorded == limits && *configured == other)
    );
    let message = error.to_string();
    for part in ["max_age 1825d", "1500ms", "max_future 1d"] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_programs_start_together_one_program_records_its_limits() {
    let fresh = Fresh::migrated().await;
    let tasks = (1..=8).map(|days| {
        let settings = fresh.postgres.settings();
        let limits = EventLimits { max_age: Duration::from_secs(days * 86_400), ..EventLimits::default() };
        tokio::spawn(
            async move { (settings.event_limits(limits).await.is_ok(), settings.cursor_secret().await.is_ok()) },
        )
    });
    let results: Vec<_> = join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(results.iter().filter(|(agreed, _)| *agreed).count(), 1);
    assert!(results.iter().all(|(_, secret)| *secret));
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM settings").await, 3);
    assert_eq!(
        fresh.value::<i32>("SELECT length(value) FROM settings WHERE name = 'cursor_secret'").await,
        64,
        "32 bytes in hexadecimal"
    );
}
