//! The repair of totals in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::{MemoryAggregateStore, MemoryEventStore};
use crate::Error;
use crate::ports::TotalsRepair;
use crate::time::Day;

/// Recomputes the totals of the days that conflicts have made dirty.
#[derive(Debug)]
pub struct MemoryTotalsRepair {
    events: Arc<MemoryEventStore>,
    totals: Arc<MemoryAggregateStore>,
}

impl MemoryTotalsRepair {
    /// A repair of `totals` from `events`.
    pub fn new(events: Arc<MemoryEventStore>, totals: Arc<MemoryAggregateStore>) -> Self {
        Self { events, totals }
    }
}

#[async_trait]
impl TotalsRepair for MemoryTotalsRepair {
    async fn repair(&self) -> Result<Vec<Day>, Error> {
        // The combined store also locks both stores, in the same order. So there is no deadlock.
        let mut events = self.events.lock();
        let mut totals = self.totals.lock();
        let dirty = events.take_dirty().into_iter().chain(totals.take_dirty()).collect();
        Ok(totals.recompute(dirty, &events))
    }
}
