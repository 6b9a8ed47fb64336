//! Whether a service is ready: which dependencies it can use, and since when and why it cannot use other dependencies.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::crash;
use crate::ports::{Clock, SystemClock};
use crate::time::Timestamp;

/// The pause between two checks of a dependency.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest time that a check may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether a service works without a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criticality {
    /// The service is not ready without the dependency.
    Required,
    /// The service is ready without the dependency, but slower or incomplete.
    Optional,
}

/// The state of the dependencies of a service, by name.
///
/// [`watch`](Self::watch) checks a dependency every second. [`register`](Self::register) and [`set`](Self::set) are for states
/// that the program finds out by itself. [`report`](Self::report) returns the state for a load balancer or an operator.
#[derive(Default)]
pub struct Readiness {
    shutdown: CancellationToken,
    stop_reason: Option<Box<dyn Fn() -> Option<String> + Send + Sync>>,
    dependencies: Mutex<BTreeMap<&'static str, Dependency>>,
}

#[derive(Debug)]
struct Dependency {
    criticality: Criticality,
    problem: Option<Problem>,
}

/// Why a dependency cannot be used.
#[derive(Clone, Debug)]
struct Problem {
    reason: String,
    /// Since when the dependency cannot be used, also if the reason has changed since then.
    since: Timestamp,
}

/// The readiness of a service. As JSON, it is the body of `/readyz`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReadinessReport {
    /// Whether every required dependency can be used, and the service is not stopping.
    pub ready: bool,
    /// For each required dependency that cannot be used, the reason. The name `service` means that the service is stopping.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<&'static str, String>,
    /// For each optional dependency that cannot be used, the reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<&'static str, String>,
    /// Since when each of these dependencies cannot be used, also if the reason has changed since then.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub since: BTreeMap<&'static str, Timestamp>,
}

impl Readiness {
    /// The readiness of a service that stops with `shutdown`. After `shutdown` is cancelled, the service is not ready, and no
    /// dependency is checked.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { shutdown, ..Self::default() }
    }

    /// Reports the result of `reason` as the reason of a stop. If the result is `None`, the reason is `stopping`.
    #[must_use]
    pub fn with_stop_reason(self, reason: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self { stop_reason: Some(Box::new(reason)), ..self }
    }

    /// Adds a dependency. The dependency counts as unusable until [`set`](Self::set) changes its state.
    pub fn register(&self, name: &'static str, criticality: Criticality) {
        let problem = Problem { reason: "not reached yet".to_owned(), since: SystemClock.now() };
        self.lock().insert(name, Dependency { criticality, problem: Some(problem) });
    }

    /// Records why the dependency `name` cannot be used; `None` means that it can be used. Each change is logged once. A name
    /// that is not registered has no effect.
    pub fn set(&self, name: &'static str, problem: Option<String>) {
        let mut dependencies = self.lock();
        let Some(Dependency { criticality, problem: known }) = dependencies.get_mut(name) else { return };
        match (&known, &problem) {
            (Some(_), None) => tracing::info!(dependency = name, "ready"),
            (None, Some(reason)) if *criticality == Criticality::Required => {
                tracing::warn!(dependency = name, reason, "not ready");
            }
            (None, Some(reason)) => {
                tracing::warn!(dependency = name, reason, "not usable; the service continues without this dependency");
            }
            _ => {}
        }
        let since = known.take().map_or_else(|| SystemClock.now(), |known| known.since);
        *known = problem.map(|reason| Problem { reason, since });
    }

    /// Registers the dependency `name` at once, and returns a future that checks it every second until the shutdown. Spawn
    /// this future as a task. A check that takes longer than 3 s counts as failed.
    ///
    /// If `check` panics, the dependency counts as unusable from this time on.
    pub fn watch<C, E>(
        self: &Arc<Self>,
        name: &'static str,
        criticality: Criticality,
        check: C,
    ) -> impl Future<Output = ()> + use<C, E>
    where
        C: AsyncFn() -> Result<(), E>,
        E: fmt::Display,
    {
        self.register(name, criticality);
        let readiness = self.clone();
        async move {
            let watcher = Watcher { readiness: &readiness, name };
            while !readiness.shutdown.is_cancelled() {
                crash::in_task(watcher.name);
                let problem = match tokio::time::timeout(TIMEOUT, check()).await {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_) => Some(format!("no response within {} s", TIMEOUT.as_secs())),
                };
                readiness.set(name, problem);
                tokio::select! {
                    () = readiness.shutdown.cancelled() => {}
                    () = tokio::time::sleep(INTERVAL) => {}
                }
            }
        }
    }

    /// The state of every dependency.
    pub fn report(&self) -> ReadinessReport {
        let mut report = ReadinessReport { ready: true, ..ReadinessReport::default() };
        for (name, Dependency { criticality, problem }) in &*self.lock() {
            let Some(Problem { reason, since }) = problem else { continue };
            let reasons = match criticality {
                Criticality::Required => {
                    report.ready = false;
                    &mut report.dependencies
                }
                Criticality::Optional => &mut report.notes,
            };
            reasons.insert(name, reason.clone());
            report.since.insert(name, *since);
        }
        if self.shutdown.is_cancelled() {
            report.ready = false;
            let reason = self.stop_reason.as_ref().and_then(|reason| reason());
            report.dependencies.insert("service", reason.unwrap_or_else(|| "stopping".to_owned()));
        }
        report
    }

    /// Sets the gauge `netagg_dependency_up` of every dependency to its current state. Call this before each scrape.
    pub fn record_metrics(&self) {
        for (name, dependency) in &*self.lock() {
            let is_up = if dependency.problem.is_none() { 1.0 } else { 0.0 };
            metrics::gauge!("netagg_dependency_up", "dependency" => *name).set(is_up);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Dependency>> {
        self.dependencies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("dependencies", &self.dependencies).finish_non_exhaustive()
    }
}

/// Marks a dependency as unusable when its check panics. Otherwise the last state would stay forever.
struct Watcher<'a> {
    readiness: &'a Readiness,
    name: &'static str,
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.readiness.set(self.name, Some("the task that checks it has panicked; the service stops".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_stops_is_not_ready() {
        let shutdown = CancellationToken::new();
        let readiness = Readiness::new(shutdown.clone());
        readiness.register("postgres", Criticality::Required);
        readiness.set("postgres", None);
        assert!(readiness.report().ready);
        shutdown.cancel();
        let report = readiness.report();
        assert!(!report.ready && report.dependencies["service"] == "stopping", "{report:?}");
        let readiness = readiness.with_stop_reason(|| Some("a task has panicked".to_owned()));
        assert_eq!(readiness.report().dependencies["service"], "a task has panicked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watched_dependency_is_checked_until_the_shutdown() {
        let shutdown = CancellationToken::new();
        let readiness = Arc::new(Readiness::new(shutdown.clone()));
        let is_unavailable = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let watch = readiness.watch("postgres", Criticality::Required, {
            let is_unavailable = is_unavailable.clone();
            async move || {
                if is_unavailable.load(std::sync::atomic::Ordering::Relaxed) { Err("unavailable") } else { Ok(()) }
            }
        });
        assert_eq!(readiness.report().dependencies["postgres"], "not reached yet");
        let watch = tokio::spawn(watch);
        tokio::time::sleep(INTERVAL / 2).await;
        assert_eq!(readiness.report().dependencies["postgres"], "unavailable");
        is_unavailable.store(false, std::sync::atomic::Ordering::Relaxed);
        tokio::time::sleep(INTERVAL).await;
        assert!(readiness.report().ready);
        shutdown.cancel();
        watch.await.expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_counts_as_failed() {
        let readiness = Arc::new(Readiness::default());
        let watch = readiness
            .watch("redis", Criticality::Optional, async || std::future::pending::<Result<(), String>>().await);
        drop(tokio::time::timeout(TIMEOUT + INTERVAL / 2, watch).await);
        assert_eq!(readiness.report().notes["redis"], "no response within 3 s");
    }

    #[test]
    fn only_a_required_dependency_makes_a_service_unready() {
        let readiness = Readiness::default();
        readiness.register("postgres", Criticality::Required);
        readiness.register("redis", Criticality::Optional);
        assert!(!readiness.report().ready, "not ready before the first check");
        readiness.set("postgres", None);
        readiness.set("redis", Some("unavailable".to_owned()));
        let report = readiness.report();
        assert!(report.ready);
        assert_eq!(report.notes["redis"], "unavailable");
        readiness.set("postgres", Some("connection refused".to_owned()));
        let report = readiness.report();
        assert_eq!(
            serde_json::to_value(&report).expect("JSON"),
            serde_json::json!({
                "ready": false,
                "dependencies": {"postgres": "connection refused"},
                "notes": {"redis": "unavailable"},
                "since": {"postgres": report.since["postgres"], "redis": report.since["redis"]},
            })
        );
    }

    #[test]
    fn a_new_reason_does_not_change_the_start_of_an_outage() {
        let readiness = Readiness::default();
        readiness.register("postgres", Criticality::Required);
        let begun = readiness.report().since["postgres"];
        readiness.set("postgres", Some("connection refused".to_owned()));
        readiness.set("postgres", Some("starting up".to_owned()));
        assert_eq!(readiness.report().since["postgres"], begun);
        readiness.set("postgres", None);
        assert_eq!(readiness.report().since.get("postgres"), None);
        while SystemClock.now() == begun {}
        readiness.set("postgres", Some("connection refused".to_owned()));
        assert!(readiness.report().since["postgres"] > begun);
    }
}
