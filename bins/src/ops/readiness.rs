//! Which dependencies a service can use, found out by asking them now and then.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use netagg_core::Timestamp;
use netagg_core::ports::{Clock, SystemClock};
use serde::Serialize;

use crate::Shutdown;

/// How often a dependency is asked.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a dependency may take to answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether a service works without a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums)]
pub enum Need {
    /// Not ready without it.
    Required,
    /// Slower without it.
    Optional,
}

/// The state of a service's dependencies.
#[derive(Debug, Default)]
pub struct Readiness {
    shutdown: Shutdown,
    dependencies: Mutex<BTreeMap<&'static str, Dependency>>,
}

#[derive(Debug)]
struct Dependency {
    need: Need,
    problem: Option<Problem>,
}

/// Why a dependency cannot be used.
#[derive(Clone, Debug)]
struct Problem {
    reason: String,
    /// Since when it cannot, for whatever reason.
    since: Timestamp,
}

/// The body of `/readyz`.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[allow(clippy::exhaustive_structs)]
pub struct Report {
    /// Whether every required dependency can be used.
    pub ready: bool,
    /// Why a required dependency cannot be used.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dependencies: BTreeMap<&'static str, String>,
    /// Why an optional dependency cannot be used.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<&'static str, String>,
    /// Since when each of these cannot be used, whatever the reasons were in the meantime.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub since: BTreeMap<&'static str, Timestamp>,
}

impl Readiness {
    /// For a service that stops with `shutdown`. It is not ready from then on, as its dependencies are not asked any more.
    pub fn new(shutdown: Shutdown) -> Self {
        Self { shutdown, ..Self::default() }
    }

    /// Adds a dependency, which is away until [`set`](Self::set) says otherwise.
    pub fn expect(&self, name: &'static str, need: Need) {
        let problem = Problem { reason: "not reached yet".to_owned(), since: SystemClock.now() };
        self.lock().insert(name, Dependency { need, problem: Some(problem) });
    }

    /// Notes why `name` cannot be used, or that it can. A change is logged once.
    pub fn set(&self, name: &'static str, problem: Option<String>) {
        let mut dependencies = self.lock();
        let Some(Dependency { need, problem: known }) = dependencies.get_mut(name) else { return };
        match (&known, &problem) {
            (Some(_), None) => tracing::info!(dependency = name, "ready"),
            (None, Some(reason)) if *need == Need::Required => {
                tracing::warn!(dependency = name, reason, "not ready");
            }
            (None, Some(reason)) => tracing::warn!(dependency = name, reason, "going on without it"),
            _ => {}
        }
        let since = known.take().map_or_else(|| SystemClock.now(), |known| known.since);
        *known = problem.map(|reason| Problem { reason, since });
    }

    /// Each dependency, and whether it can be used.
    pub fn states(&self) -> Vec<(&'static str, bool)> {
        self.lock().iter().map(|(name, known)| (*name, known.problem.is_none())).collect()
    }

    /// What `/readyz` says.
    pub fn report(&self) -> Report {
        let mut report = Report { ready: true, ..Report::default() };
        for (name, Dependency { need, problem }) in &*self.lock() {
            let Some(Problem { reason, since }) = problem else { continue };
            let reasons = match need {
                Need::Required => {
                    report.ready = false;
                    &mut report.dependencies
                }
                Need::Optional => &mut report.notes,
            };
            reasons.insert(name, reason.clone());
            report.since.insert(name, *since);
        }
        if self.shutdown.token().is_cancelled() {
            report.ready = false;
            let reason = self.shutdown.check().err().map_or("stopping".to_owned(), |failure| failure.to_string());
            report.dependencies.insert("service", reason);
        }
        report
    }

    /// Asks a dependency now and then, in the background until it is time to stop.
    pub fn watch<F, E>(self: &Arc<Self>, name: &'static str, need: Need, probe: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = Result<(), E>> + Send,
        E: Display,
    {
        self.expect(name, need);
        let (readiness, stop) = (self.clone(), self.shutdown.token());
        self.shutdown.spawn(name, async move {
            let watcher = Watcher { readiness: &readiness, name };
            while !stop.is_cancelled() {
                netagg_core::crash::in_task(watcher.name);
                let problem = match tokio::time::timeout(PROBE_TIMEOUT, probe()).await {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(error.to_string()),
                    Err(_) => Some(format!("no answer within {} s", PROBE_TIMEOUT.as_secs())),
                };
                readiness.set(name, problem);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(PROBE_INTERVAL) => {}
                }
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Dependency>> {
        self.dependencies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces the last state of a dependency when its watcher panics: no later one would come.
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

    #[tokio::test]
    async fn a_watcher_that_panics_leaves_the_service_unready_and_stops_it() {
        let shutdown = Shutdown::default();
        let readiness = Arc::new(Readiness::new(shutdown.clone()));
        let looks = std::sync::atomic::AtomicUsize::new(0);
        readiness.watch("postgres", Need::Required, move || {
            let look = looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move { if look == 0 { Ok::<_, String>(()) } else { panic!("the second look") } }
        });
        shutdown.token().cancelled().await;
        let report = readiness.report();
        assert!(!report.ready, "{report:?}");
        for name in ["postgres", "service"] {
            assert!(report.dependencies[name].contains("panicked"), "{report:?}");
        }
        assert!(shutdown.check().is_err_and(|failure| failure.to_string().contains("postgres")));
    }

    #[test]
    fn a_service_that_stops_is_not_ready() {
        let shutdown = Shutdown::default();
        let readiness = Readiness::new(shutdown.clone());
        readiness.expect("postgres", Need::Required);
        readiness.set("postgres", None);
        assert!(readiness.report().ready);
        shutdown.stop();
        let report = readiness.report();
        assert!(!report.ready && report.dependencies["service"] == "stopping", "{report:?}");
    }

    #[test]
    fn only_a_required_dependency_makes_a_service_unready() {
        let readiness = Readiness::default();
        readiness.expect("postgres", Need::Required);
        readiness.expect("redis", Need::Optional);
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
        readiness.expect("postgres", Need::Required);
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
