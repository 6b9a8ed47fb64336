//! Whether a service is ready: which dependencies it can use, and since when and why it cannot use the others.

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
/// How long a check may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether a service works without a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Criticality {
    /// The service is not ready without it.
    Required,
    /// The service is ready without it, but slower or incomplete.
    Optional,
}

/// The state of a service's dependencies, by name.
///
/// [`watch`](Self::watch) checks a dependency again and again; [`register`](Self::register) and [`set`](Self::set) are for
/// states that the program learns by itself. [`report`](Self::report) is the answer for a load balancer or an operator.
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
    /// Since when it cannot be used, also if the reasons changed.
    since: Timestamp,
}

/// What a service tells about its readiness; as JSON, the body of `/readyz`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReadinessReport {
    /// Whether every required dependency can be used, and the service is not stopping.
    pub ready: bool,
    /// Why a required dependency cannot be used. The name `service` stands for a stop.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<&'static str, String>,
    /// Why an optional dependency cannot be used.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<&'static str, String>,
    /// Since when each of these dependencies cannot be used, also if the reasons changed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub since: BTreeMap<&'static str, Timestamp>,
}

impl Readiness {
    /// The readiness of a service that stops with `shutdown`. From then on the service is not ready, and no dependency is
    /// checked.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { shutdown, ..Self::default() }
    }

    /// Takes the reason of a stop from `reason`; without one it is `stopping`.
    #[must_use]
    pub fn with_stop_reason(self, reason: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        Self { stop_reason: Some(Box::new(reason)), ..self }
    }

    /// Adds a dependency. It counts as unusable until [`set`](Self::set) says otherwise.
    pub fn register(&self, name: &'static str, criticality: Criticality) {
        let problem = Problem { reason: "not reached yet".to_owned(), since: SystemClock.now() };
        self.lock().insert(name, Dependency { criticality, problem: Some(problem) });
    }

    /// Records why the dependency `name` cannot be used, or with `None` that it can. A change is logged once. Has no effect
    /// on a name that is not registered.
    pub fn set(&self, name: &'static str, problem: Option<String>) {
        let mut dependencies = self.lock();
        let Some(Dependency { criticality, problem: known }) = dependencies.get_mut(name) else { return };
        match (&known, &problem) {
            (Some(_), None) => tracing::info!(dependency = name, "ready"),
            (None, Some(reason)) if *criticality == Criticality::Required => {
                tracing::warn!(dependency = name, reason, "not ready");
            }
            (None, Some(reason)) => tracing::warn!(dependency = name, reason, "going on without it"),
            _ => {}
        }
        let since = known.take().map_or_else(|| SystemClock.now(), |known| known.since);
        *known = problem.map(|reason| Problem { reason, since });
    }

    /// Registers the dependency `name` at once, and returns a future that checks it every second until the shutdown. Spawn
    /// the future as a task. A check that takes longer than 3 s counts as failed.
    ///
    /// If `check` panics, the dependency counts as unusable from then on.
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
                    Err(_) => Some(format!("no answer within {} s", TIMEOUT.as_secs())),
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

    /// Sets the gauge `netagg_dependency_up` of every dependency to its state now. Call it before each scrape.
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

/// Replaces the last state of a dependency when its check panics: no later state would come.
struct Watcher<'a> {
    readiness: &'a Readiness,
    name: &'static str,
}

impl Drop for Watcher<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.readiness.set(self.name, Some("its watcher has panicked; the service stops".to_owned()));
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
        let is_away = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let watch = readiness.watch("postgres", Criticality::Required, {
            let is_away = is_away.clone();
            async move || if is_away.load(std::sync::atomic::Ordering::Relaxed) { Err("away") } else { Ok(()) }
        });
        assert_eq!(readiness.report().dependencies["postgres"], "not reached yet");
        let watch = tokio::spawn(watch);
        tokio::time::sleep(INTERVAL / 2).await;
        assert_eq!(readiness.report().dependencies["postgres"], "away");
        is_away.store(false, std::sync::atomic::Ordering::Relaxed);
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
        assert_eq!(readiness.report().notes["redis"], "no answer within 3 s");
    }

    #[test]
    fn only_a_required_dependency_makes_a_service_unready() {
        let readiness = Readiness::default();
        readiness.register("postgres", Criticality::Required);
        readiness.register("redis", Criticality::Optional);
        assert!(!readiness.report().ready, "not before it was reached");
        readiness.set("postgres", None);
        readiness.set("redis", Some("away".to_owned()));
        let report = readiness.report();
        assert!(report.ready);
        assert_eq!(report.notes["redis"], "away");
        readiness.set("postgres", Some("connection refused".to_owned()));
        let report = readiness.report();
        assert_eq!(
            serde_json::to_value(&report).expect("JSON"),
            serde_json::json!({
                "ready": false,
                "dependencies": {"postgres": "connection refused"},
                "notes": {"redis": "away"},
                "since": {"postgres": report.since["postgres"], "redis": report.since["redis"]},
            })
        );
    }

    #[test]
    fn what_is_away_is_so_since_it_went_whatever_the_reason() {
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
