//! Totals that follow the events, in memory.

use std::sync::Arc;

use async_trait::async_trait;

use super::{MemoryAggregateStore, MemoryEventStore};
use crate::Error;
use crate::ports::TotalsRepair;
use crate::time::Day;

/// Recomputes the days that conflicts made dirty.
#[derive(Debug)]
pub struct MemoryTotalsRepair {
    events: Arc<MemoryEventStore>,
    totals: Arc<MemoryAggregateStore>,
}

impl MemoryTotalsRepair {
    /// Makes `totals` follow `events`.
    pub fn new(events: Arc<MemoryEventStore>, totals: Arc<MemoryAggregateStore>) -> Self {
        Self { events, totals }
    }
}

#[async_trait]
impl TotalsRepair for MemoryTotalsRepair {
    async fn repair(&self) -> Result<Vec<Day>, Error> {
        // Always in this order; nobody else holds both.
        let mut events = self.events.lock();
        let mut totals = self.totals.lock();
        let dirty = events.take_dirty().into_iter().chain(totals.take_dirty()).collect();
        Ok(totals.recompute(dirty, &events))
    }
}
