//! The combined mode, in which the ingestor also counts, and the switches between the modes.

use netagg_core::crash::CrashPoint;
use netagg_testkit::{eventually, kafka, postgres, redis};

use super::installation::{Ended, Installation, PATIENCE};
use super::outages::{LOAD, more_than, withstood};
use crate::support::programs::Process;

/// The crash points of a switch.
pub(super) const CRASH_POINTS: [CrashPoint; 3] =
    [CrashPoint::SwitchRecorded, CrashPoint::GroupMoved, CrashPoint::TablesSwitched];

/// The exit code after SIGABRT: 128 plus the number of the signal.
const ABORTED: i32 = 134;

/// Stops services when they have nothing left to do and all days of conflicts are repaired.
async fn stop(installation: &Installation, services: &mut [Process]) {
    let pool = installation.pool().await;
    eventually(PATIENCE, "the days of conflicts are repaired", async || {
        let dirty = sqlx::query_scalar("SELECT count(*) FROM agg_dirty_day").fetch_one(&pool).await;
        match dirty.map_err(|error| error.to_string())? {
            0_i64 => Ok(()),
            days => Err(format!("{days} days")),
        }
    })
    .await;
    pool.close().await;
    for service in &mut *services {
        service.terminate();
    }
    for service in services {
        assert_eq!(service.code(PATIENCE).await, 0, "{}", service.stderr());
    }
}

/// Starts the services that read the topic.
fn start(installation: &Installation) -> Vec<Process> {
    installation.consumers().iter().map(|service| installation.start(service)).collect()
}

/// Switches the mode.
async fn set(installation: &Installation, mode: &str) -> Ended {
    let set = installation.run("netagg", &["mode", "set", mode]).await;
    assert_eq!(set.code, 0, "{}\n{}", set.stdout, set.stderr);
    assert!(set.stdout.contains(&format!("is in the {mode} mode")), "{}", set.stdout);
    assert!(set.stdout.contains("Equal: the totals are the sums over the events"), "{}", set.stdout);
    set
}

async fn show(installation: &Installation) -> String {
    installation.run("netagg", &["mode", "show"]).await.stdout
}

/// Waits until a service ends with exit code 2. Returns its log.
async fn rejected(mut service: Process) -> String {
    assert_eq!(service.code(PATIENCE).await, 2, "{}", service.stderr());
    service.stderr()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_work_in_the_mode_of_the_database_through_both_switches() {
    let mut installation = Installation::new().await;
    assert_eq!(show(&installation).await, "none yet: the first service that starts records its mode\n");
    let mut adversary = installation.adversary(18);
    let _api = installation.start("api");
    for mode in ["separate", "combined", "separate", "combined"] {
        if show(&installation).await != "none yet: the first service that starts records its mode\n" {
            set(&installation, mode).await;
        }
        // A mode that differs from the mode of the database is a wrong configuration.
        let other = if mode == "combined" { "separate" } else { "combined" };
        if show(&installation).await.trim() == mode {
            installation.set("INGESTOR_MODE", other);
            let log = rejected(installation.start("ingestor")).await;
            let expected =
                [format!("is in the {mode} mode"), format!("netagg mode set {other}"), "INGESTOR_MODE".into()];
            assert!(expected.iter().all(|part| log.contains(part)), "{log}");
        }
        installation.set("INGESTOR_MODE", mode);
        adversary.publish(400).await;
        let mut services = start(&installation);
        if mode == "combined" {
            let log = rejected(installation.another("aggregator")).await;
            assert!(log.contains("is in the combined mode") && log.contains("netagg mode set separate"), "{log}");
        }
        for service in installation.consumers() {
            installation.readiness(service, 200).await;
        }
        installation.withstood(&adversary).await;
        // The cached totals are invalidated, so the API returns the new totals.
        eventually(PATIENCE, "the API has the totals", async || {
            let (_, answer) =
                installation.api("/api/v1/aggregates?granularity=MONTH&from=2020-01-01&to=2029-12-28").await?;
            let rows = answer["data"].as_array().ok_or_else(|| answer.to_string())?;
            let count: i64 = rows.iter().filter_map(|row| row["count_events"].as_i64()).sum();
            if count == adversary.events() { Ok(()) } else { Err(format!("{count} of {}", adversary.events())) }
        })
        .await;
        assert_eq!(show(&installation).await.trim(), mode);
        let running = installation.run("netagg", &["mode", "set", other]).await;
        assert_eq!((running.code, running.stderr.contains("Stop the services first")), (1, true), "{}", running.stderr);
        stop(&installation, &mut services).await;
        // In the separate mode, also check that a switch is rejected while the topic has unprocessed messages.
        if mode == "separate" {
            adversary.publish(10).await;
            let behind = installation.run("netagg", &["mode", "set", other]).await;
            assert_eq!((behind.code, behind.stderr.contains("is not drained")), (1, true), "{}", behind.stderr);
            let mut services = start(&installation);
            installation.withstood(&adversary).await;
            stop(&installation, &mut services).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_dies_at_any_step_is_finished_by_the_next_switch() {
    let mut installation = Installation::new().await;
    let mut adversary = installation.adversary(19);
    adversary.publish(400).await;
    let mut services = start(&installation);
    installation.withstood(&adversary).await;
    stop(&installation, &mut services).await;
    let mut modes = ["combined", "separate"].into_iter().cycle();
    for (point, mode) in CRASH_POINTS.iter().flat_map(|point| [point; 2]).zip(&mut modes) {
        let failpoint = format!("{}=return", point.as_str());
        let died = installation.run_set("netagg", &["mode", "set", mode], &[("FAILPOINTS", &failpoint)]).await;
        assert_eq!(died.code, ABORTED, "{} {mode}\n{}", point.as_str(), died.stderr);
        let shown = show(&installation).await;
        assert!(shown.contains("between two modes") && shown.contains(&format!("netagg mode set {mode}")), "{shown}");
        for variable in ["separate", "combined"] {
            installation.set("INGESTOR_MODE", variable);
            let log = rejected(installation.start("ingestor")).await;
            assert!(log.contains(&format!("finish it with `netagg mode set {mode}`")), "{log}");
        }
        set(&installation, mode).await;
        installation.set("INGESTOR_MODE", mode);
        adversary.publish(100).await;
        let mut services = start(&installation);
        installation.withstood(&adversary).await;
        stop(&installation, &mut services).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_combined_ingestor_survives_outages_of_its_database_and_needs_no_cache() {
    let (server, cache) = (postgres::Server::start().await, redis::Server::start().await);
    let mut installation = Installation::on(&server.url(), &kafka::brokers().await, &cache.url());
    installation.set("INGESTOR_MODE", "combined");
    installation.set_up().await;
    server.stop().await;
    let _ingestor = installation.start("ingestor");
    installation.readiness("ingestor", 503).await;
    server.start_again().await;
    installation.readiness("ingestor", 200).await;
    let mut generator = installation.generator(&LOAD);
    let before = more_than(&installation, 500).await;
    cache.pause().await;
    let without_cache = more_than(&installation, before + 500).await;
    server.stop().await;
    installation.readiness("ingestor", 503).await;
    server.start_again().await;
    let between = more_than(&installation, without_cache + 500).await;
    server.crash().await;
    cache.resume().await;
    server.start_again().await;
    more_than(&installation, between + 500).await;
    withstood(&installation, &mut generator).await;
}
