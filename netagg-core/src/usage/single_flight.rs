//! Single flight: if many callers miss the same cached response at once, one of them loads it and the others wait for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::Error;

/// The loads in progress, by the cache key that each load fills.
#[derive(Debug, Default)]
pub(super) struct SingleFlight(Mutex<HashMap<String, Arc<OnceCell<Bytes>>>>);

impl SingleFlight {
    /// Returns the result of the load of `key` that is in progress. If there is none, it runs `load`. If a load fails or is
    /// cancelled, the next waiter runs its own load.
    pub(super) async fn join(
        &self,
        key: &str,
        load: impl Future<Output = Result<Bytes, Error>>,
    ) -> Result<Bytes, Error> {
        let cell = self.flights().entry(key.to_owned()).or_default().clone();
        let guard = FlightGuard { flights: self, key, cell };
        guard.cell.get_or_try_init(|| load).await.cloned()
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<String, Arc<OnceCell<Bytes>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a flight when the first caller leaves after the load, or when the last caller leaves. Later callers look into the
/// cache first, then start a new flight.
struct FlightGuard<'a> {
    flights: &'a SingleFlight,
    key: &'a str,
    cell: Arc<OnceCell<Bytes>>,
}

impl Drop for FlightGuard<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.flights();
        // Two references: the map and this caller have one each. If more callers wait, a cancelled caller leaves the flight to
        // them.
        let is_over = self.cell.initialized() || Arc::strong_count(&self.cell) == 2;
        if is_over && flights.get(self.key).is_some_and(|current| Arc::ptr_eq(current, &self.cell)) {
            flights.remove(self.key);
        }
    }
}
