//! What a consumer knows of its broker, for readiness.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use netagg_core::PartitionId;

/// Tells how a [`KafkaSource`](crate::KafkaSource) fares; a cheap handle that outlives it.
#[derive(Clone, Debug)]
pub struct KafkaHealth(Arc<Mutex<State>>);

/// What keeps a source from reading.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct KafkaProblem {
    /// What is wrong, for a person.
    pub reason: String,
    /// When it began.
    pub since: SystemTime,
}

#[derive(Debug)]
struct State {
    broker: Option<KafkaProblem>,
    topic: Option<KafkaProblem>,
    assigned: BTreeSet<PartitionId>,
}

impl KafkaHealth {
    pub(crate) fn new() -> Self {
        let broker = Some(KafkaProblem { reason: "not connected yet".to_owned(), since: SystemTime::now() });
        Self(Arc::new(Mutex::new(State { broker, topic: None, assigned: BTreeSet::new() })))
    }

    /// What keeps the source from reading; `None` while it can, also if it has no partition because there are more
    /// members than partitions.
    pub fn problem(&self) -> Option<KafkaProblem> {
        let state = self.state();
        state.broker.clone().or_else(|| state.topic.clone())
    }

    /// The partitions that are assigned to the source, in order.
    pub fn assigned(&self) -> Vec<PartitionId> {
        self.state().assigned.iter().cloned().collect()
    }

    /// Notes whether a broker answers; a change is logged.
    pub(crate) fn broker(&self, problem: Option<String>) {
        note(&mut self.state().broker, problem, "brokers");
    }

    /// Notes whether the topic can be read; a change is logged.
    pub(crate) fn topic(&self, problem: Option<String>) {
        note(&mut self.state().topic, problem, "topic");
    }

    pub(crate) fn topic_is_a_problem(&self) -> bool {
        self.state().topic.is_some()
    }

    pub(crate) fn assign(&self, partitions: &[PartitionId]) {
        self.state().assigned.extend(partitions.iter().cloned());
    }

    pub(crate) fn revoke(&self, partitions: &[PartitionId]) {
        self.state().assigned.retain(|partition| !partitions.contains(partition));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(noted: &mut Option<KafkaProblem>, problem: Option<String>, of: &str) {
    match (noted.as_mut(), problem) {
        (None, Some(reason)) => {
            tracing::warn!(reason, "kafka {of}: waiting");
            *noted = Some(KafkaProblem { reason, since: SystemTime::now() });
        }
        (Some(known), Some(reason)) => known.reason = reason,
        (Some(_), None) => {
            tracing::info!("kafka {of}: ready");
            *noted = None;
        }
        (None, None) => {}
    }
}
