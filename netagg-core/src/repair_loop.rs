//! The work beside a consumer that changes totals: it invalidates the changed months in the cache, and repairs dirty days.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::consumer::{Aborted, ConsumerStats, Retrier};
use crate::ports::{Cache, TotalsRepair};
use crate::retry_policy::RetryPolicy;
use crate::time::Month;

/// The pause between two repairs, before a random part is added. With this pause, a conflict is repaired within 30 s.
const REPAIR_INTERVAL: Duration = Duration::from_secs(5);

/// How long a stop waits for the invalidation of the last changes in the cache.
const LAST_INVALIDATION: Duration = Duration::from_secs(1);

/// Invalidates the cache and repairs dirty days. Both are optional.
#[derive(Clone, Debug, Default)]
pub(crate) struct TotalsMaintenance {
    pub(crate) cache: Option<Arc<dyn Cache>>,
    pub(crate) repair: Option<Arc<dyn TotalsRepair>>,
}

impl TotalsMaintenance {
    /// Runs `consume`, which adds to `changes`, and the maintenance beside it. Ends after `consume` has ended.
    pub(crate) async fn run_beside(
        &self,
        consume: impl Future<Output = Result<(), Error>>,
        changes: &ChangedMonths,
        stats: &ConsumerStats,
    ) -> Result<(), Error> {
        let stop = CancellationToken::new();
        let consume = async {
            let outcome = consume.await;
            stop.cancel();
            outcome
        };
        let repair = async {
            if let Some(repair) = &self.repair {
                keep_repairing(repair.as_ref(), changes, &stop, stats.unwatched()).await;
            }
        };
        let invalidate = async {
            if let Some(cache) = &self.cache {
                invalidate(cache.as_ref(), changes, &stop, stats.unwatched()).await;
            }
        };
        tokio::join!(consume, repair, invalidate).0
    }
}

/// The months whose totals changed since the last invalidation. The set stays small, even in a long outage of the cache.
#[derive(Debug, Default)]
pub(crate) struct ChangedMonths {
    months: Mutex<BTreeSet<Month>>,
    added: Notify,
}

impl ChangedMonths {
    pub(crate) fn add(&self, months: impl IntoIterator<Item = Month>) {
        self.months.lock().unwrap_or_else(PoisonError::into_inner).extend(months);
        self.added.notify_one();
    }

    fn take(&self) -> BTreeSet<Month> {
        std::mem::take(&mut *self.months.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Repairs dirty days until `stop`, beside the consumer. The consumer never waits for a repair.
async fn keep_repairing(
    repair: &dyn TotalsRepair,
    changes: &ChangedMonths,
    stop: &CancellationToken,
    stats: ConsumerStats,
) {
    let retrier = Retrier::new(RetryPolicy::default(), stop.clone(), Arc::new(stats));
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // Without the random part, members that started together would repair at the same moments.
            () = tokio::time::sleep(RetryPolicy::jittered(REPAIR_INTERVAL)) => {}
        }
        // A repair may take minutes. It may be dropped: the days that are left stay dirty.
        let Some(outcome) = stop.run_until_cancelled(retrier.run(|| repair.repair())).await else { return };
        match outcome {
            Ok(days) if days.is_empty() => {}
            Ok(days) => {
                tracing::info!(days = days.len(), "repaired the totals of dirty days");
                metrics::counter!("netagg_repaired_days_total").increment(days.len() as u64);
                changes.add(days.iter().map(|day| day.month()));
            }
            Err(Aborted::Stopping) => return,
            Err(Aborted::Failed(error)) => tracing::error!(%error, "cannot repair totals; will try again"),
        }
    }
}

/// Invalidates the changed months in `cache` until `stop`, beside the consumer. The consumer never waits for the cache.
async fn invalidate(cache: &dyn Cache, changes: &ChangedMonths, stop: &CancellationToken, stats: ConsumerStats) {
    // An earlier run may have ended between the commit of a change and its invalidation.
    let mut all = true;
    let mut pending = BTreeSet::new();
    let policy = RetryPolicy { max_delay: Duration::from_millis(500), ..RetryPolicy::default() };
    let retrier = Retrier::new(policy, stop.clone(), Arc::new(stats));
    loop {
        pending.append(&mut changes.take());
        tokio::select! {
            biased;
            outcome = retrier.run(|| invalidate_months(cache, all, &pending)) => match outcome {
                Ok(()) => {
                    all = false;
                    pending.clear();
                }
                Err(Aborted::Failed(error)) => {
                    tracing::warn!(%error, "cannot invalidate the cache; will retry these months with the next change");
                }
                Err(Aborted::Stopping) => break,
            },
            () = stop.cancelled() => break,
        }
        tokio::select! {
            biased;
            () = changes.added.notified() => {}
            () = stop.cancelled() => break,
        }
    }
    pending.append(&mut changes.take());
    let outcome = tokio::time::timeout(LAST_INVALIDATION, invalidate_months(cache, false, &pending)).await;
    if !matches!(outcome, Ok(Ok(()))) {
        tracing::warn!(
            "stopping before the last changes are invalidated in the cache; the next start invalidates the whole cache"
        );
    }
}

async fn invalidate_months(cache: &dyn Cache, all: bool, months: &BTreeSet<Month>) -> Result<(), Error> {
    if all {
        return cache.invalidate_all().await;
    }
    if months.is_empty() {
        return Ok(());
    }
    cache.invalidate(&months.iter().copied().collect::<Vec<_>>()).await
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::time::Day;

    #[derive(Debug)]
    struct EndlessRepair;

    #[async_trait]
    impl TotalsRepair for EndlessRepair {
        async fn repair(&self) -> Result<Vec<Day>, Error> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_consumer_does_not_wait_for_a_repair() {
        let maintenance = TotalsMaintenance { cache: None, repair: Some(Arc::new(EndlessRepair)) };
        let consume = async {
            // Meanwhile the repair has begun.
            tokio::time::sleep(3 * REPAIR_INTERVAL).await;
            Err(Error::internal("consumer", "it has failed"))
        };
        let (changes, stats) = (ChangedMonths::default(), ConsumerStats::default());
        let outcome = maintenance.run_beside(consume, &changes, &stats);
        let outcome = tokio::time::timeout(10 * REPAIR_INTERVAL, outcome).await.expect("an end");
        assert!(matches!(outcome, Err(Error::Internal { .. })), "{outcome:?}");
    }
}
