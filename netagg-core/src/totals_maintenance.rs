//! The work beside a consumer that changes totals: the cache learns which months changed, and dirty days are repaired.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::consumer::{Abandoned, ConsumerStats, Retrier, RetryPolicy};
use crate::ports::{Cache, TotalsRepair};
use crate::time::Month;

/// The pause between two looks for totals to repair, before a random share on top. A conflict is repaired within 30 s.
const REPAIR_INTERVAL: Duration = Duration::from_secs(5);

/// How long a stop waits for the cache to learn of the last changes.
const LAST_INVALIDATION: Duration = Duration::from_secs(1);

/// Invalidates a cache and repairs dirty days, as far as there is a cache and a repair.
#[derive(Clone, Debug, Default)]
pub(crate) struct TotalsMaintenance {
    pub(crate) cache: Option<Arc<dyn Cache>>,
    pub(crate) repair: Option<Arc<dyn TotalsRepair>>,
}

impl TotalsMaintenance {
    /// Runs beside `consume`, which adds to `changes`, until it ends.
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

/// The months whose totals changed since the cache was last told: a set, however long the cache is away.
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

/// Repairs dirty days until `stop`, beside the consumer, which never waits for it.
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
            // Members of a group that started together would else look together.
            () = tokio::time::sleep(retrier.jittered(REPAIR_INTERVAL)) => {}
        }
        match retrier.run(|| repair.repair()).await {
            Ok(days) if days.is_empty() => {}
            Ok(days) => {
                tracing::info!(days = days.len(), "totals follow the events again after conflicts");
                metrics::counter!("netagg_repaired_days_total").increment(days.len() as u64);
                changes.add(days.iter().map(|day| day.month()));
            }
            Err(Abandoned::Stopping) => return,
            Err(Abandoned::Failed(error)) => tracing::error!(%error, "totals are not repaired; trying again"),
        }
    }
}

/// Tells `cache` the changed months until `stop`, beside the consumer, which never waits for it.
async fn invalidate(cache: &dyn Cache, changes: &ChangedMonths, stop: &CancellationToken, stats: ConsumerStats) {
    // An earlier run may have committed changes without an invalidation.
    let mut all = true;
    let mut untold = BTreeSet::new();
    let policy = RetryPolicy { max_delay: Duration::from_millis(500), ..RetryPolicy::default() };
    let retrier = Retrier::new(policy, stop.clone(), Arc::new(stats));
    loop {
        untold.append(&mut changes.take());
        tokio::select! {
            biased;
            told = retrier.run(|| tell(cache, all, &untold)) => match told {
                Ok(()) => {
                    all = false;
                    untold.clear();
                }
                Err(Abandoned::Failed(error)) => {
                    tracing::warn!(%error, "the cache cannot be invalidated now; the next change invalidates these months, too");
                }
                Err(Abandoned::Stopping) => break,
            },
            () = stop.cancelled() => break,
        }
        tokio::select! {
            biased;
            () = changes.added.notified() => {}
            () = stop.cancelled() => break,
        }
    }
    untold.append(&mut changes.take());
    let told = tokio::time::timeout(LAST_INVALIDATION, tell(cache, false, &untold)).await;
    if !matches!(told, Ok(Ok(()))) {
        tracing::warn!(
            "stopping before the cache learned of the last changes; the next start invalidates the whole cache"
        );
    }
}

async fn tell(cache: &dyn Cache, all: bool, months: &BTreeSet<Month>) -> Result<(), Error> {
    if all {
        return cache.invalidate_all().await;
    }
    if months.is_empty() {
        return Ok(());
    }
    cache.invalidate(&months.iter().copied().collect::<Vec<_>>()).await
}
