//! Months are dropped while the services run, by a command and by retention. Some tests kill the process that drops them.

use netagg_core::crash::CrashPoint;
use netagg_core::ports::EventPublisher;
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Event, OutgoingRecord};
use netagg_kafka::{KafkaConfig, KafkaPublisher};
use netagg_testkit::eventually;

use super::installation::{Installation, PATIENCE};

/// The crash points of a process that drops months.
pub(super) const CRASH_POINTS: [CrashPoint; 3] =
    [CrashPoint::MonthsRefused, CrashPoint::MonthDetached, CrashPoint::MonthTableDropped];

/// The first days of three months, the oldest first. The months only have to be years ago.
const OLD: [&str; 3] = ["2022-03-01T00:00:00Z", "2022-04-01T00:00:00Z", "2022-05-01T00:00:00Z"];

const KEEP_ALL: &str = "3650d";
const KEEP_A_YEAR: &str = "365d";

async fn publish(installation: &Installation, events: impl IntoIterator<Item = Event>) {
    let config = KafkaConfig::new(installation.variable("KAFKA_BROKERS"));
    let publisher = KafkaPublisher::new(&config, installation.variable("KAFKA_TOPIC")).expect("a publisher");
    let record =
        |event: Event| OutgoingRecord::new(event.encode()).with_key(event.fields().user_id.as_str().to_owned());
    publisher.publish(events.into_iter().map(record).collect()).await.expect("published");
}

/// An installation that has stored and counted an event in each of three months of 2022 and an event of now. Its limits allow
/// to drop the old months.
async fn three_old_months() -> Installation {
    let mut installation = Installation::new().await;
    installation.set("EVENT_MAX_AGE", KEEP_ALL);
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let times = OLD.into_iter().chain([now.as_str()]);
    let events = times
        .enumerate()
        .map(|(id, started_at)| event(EventTemplate { id: id as u128 + 1, started_at, ..EventTemplate::default() }));
    publish(&installation, events).await;
    {
        let mut services = ["ingestor", "aggregator"].map(|name| installation.start(name));
        installation.drained_and_exact(4).await;
        for service in &mut services {
            service.terminate();
            assert_eq!(service.code(PATIENCE).await, 0);
        }
    }
    set_max_age(&mut installation, KEEP_A_YEAR).await;
    installation
}

async fn set_max_age(installation: &mut Installation, max_age: &str) {
    let set = installation.run("netagg", &["limits", "set", "--max-age", max_age]).await;
    assert_eq!(set.code, 0, "{}", set.stderr);
    installation.set("EVENT_MAX_AGE", max_age);
}

const TRACES: &str = "SELECT (SELECT count(*) FROM events_raw WHERE started_at < '2023-01-01') \
                      + (SELECT count(*) FROM event_identity WHERE day < '2023-01-01') \
                      + (SELECT count(*) FROM agg_identity WHERE day < '2023-01-01') \
                      + (SELECT count(*) FROM pg_class WHERE relname LIKE 'events\\_raw\\_2022%')";

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_that_dies_at_any_step_is_finished_by_the_next_drop() {
    for point in CRASH_POINTS {
        let installation = three_old_months().await;
        let _services = ["ingestor", "aggregator"].map(|name| installation.start(name));
        let drop = ["partitions", "drop", "--before", "2023-01"];
        let failpoint = format!("{}=return", point.as_str());
        let died = installation.run_set("netagg", &drop, &[("FAILPOINTS", &failpoint)]).await;
        assert_eq!(died.code, 134, "the command must die at {}: {}{}", point.as_str(), died.stdout, died.stderr);
        let dropped = installation.run("netagg", &drop).await;
        assert_eq!(dropped.code, 0, "{}", dropped.stderr);
        assert_eq!(installation.value::<i64>(TRACES).await, 0, "{}", dropped.stdout);
        assert_eq!(
            installation.value::<i64>("SELECT sum(count_events)::bigint FROM agg_month").await,
            4,
            "totals stay"
        );
        let audit = installation.run("netagg", &["audit"]).await;
        assert_eq!(audit.code, 0, "{}{}", audit.stdout, audit.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_services_reject_events_of_dropped_months() {
    let mut installation = three_old_months().await;
    let refused = installation.run("netagg", &["partitions", "drop", "--before", "2999-01"]).await;
    assert_eq!(refused.code, 2, "{}", refused.stdout);
    assert!(refused.stderr.contains("--before 2999-01"), "{}", refused.stderr);
    let dropped = installation.run("netagg", &["partitions", "drop", "--before", "2022-05"]).await;
    assert_eq!(dropped.code, 0, "{}", dropped.stderr);
    assert!(
        dropped.stdout.starts_with("2 months dropped, 4 identities removed\n2022-03\n2022-04"),
        "{}",
        dropped.stdout
    );
    let listed = installation.run("netagg", &["partitions", "list"]).await;
    assert!(listed.stdout.contains("dropped: the months up to 2022-04"), "{}", listed.stdout);

    // A dropped month stays dropped, also after the limits are wide again.
    set_max_age(&mut installation, KEEP_ALL).await;
    let times = ["2022-05-02T00:00:00Z", "2022-04-30T23:59:59Z", "2021-01-01T00:00:00Z", OLD[0]];
    let events = times.into_iter().zip([10, 11, 12, 1]);
    publish(
        &installation,
        events.map(|(started_at, id)| event(EventTemplate { id, started_at, ..EventTemplate::default() })),
    )
    .await;
    let _services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    let stats = eventually(PATIENCE, "three dead letters", async || {
        let stats = installation.run("netagg", &["dlq", "list", "--json", "--kind", "month_dropped"]).await;
        if stats.stdout.lines().count() == 3 { Ok(stats.stdout) } else { Err(stats.stdout + &stats.stderr) }
    })
    .await;
    assert!(stats.contains("2022-04-30T23:59:59Z"), "{stats}");
    eventually(PATIENCE, "only the valid event is counted", async || {
        let counted = installation.value::<i64>("SELECT sum(count_events)::bigint FROM agg_day").await;
        if counted == 5 { Ok(()) } else { Err(counted.to_string()) }
    })
    .await;
    assert_eq!(installation.value::<i64>("SELECT count(*) FROM events_raw").await, 3);
    let audit = installation.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 0, "{}{}", audit.stdout, audit.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_drops_old_months_with_several_replicas() {
    let mut installation = three_old_months().await;
    installation.set("EVENT_RETENTION", "364d");
    let mut wrong = installation.start("ingestor");
    assert_eq!(wrong.code(PATIENCE).await, 2);
    assert!(
        wrong.stderr().contains("EVENT_RETENTION") && wrong.stderr().contains("EVENT_MAX_AGE"),
        "{}",
        wrong.stderr()
    );

    installation.set("EVENT_RETENTION", "400d");
    let mut replicas = [installation.start("ingestor"), installation.another("ingestor")];
    eventually(PATIENCE, "the old months are gone", async || {
        let traces = installation.value::<i64>(TRACES).await;
        if traces == 0 { Ok(()) } else { Err(traces.to_string()) }
    })
    .await;
    assert_eq!(installation.value::<i64>("SELECT count(*) FROM events_raw").await, 1);
    for replica in &mut replicas {
        assert!(replica.is_running(), "{}", replica.stderr());
        assert!(!replica.stderr().contains("\"ERROR\""), "{}", replica.stderr());
    }
}
