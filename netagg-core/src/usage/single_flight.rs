//! Single flight: of many callers that miss the same answer at once, one loads it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::Error;

/// The loads under way, by the key that each fills.
#[derive(Debug, Default)]
pub(super) struct SingleFlight(Mutex<HashMap<String, Arc<OnceCell<Bytes>>>>);

impl SingleFlight {
    /// The result of `load`, or of the load of `key` that is under way. After a load that fails or is cancelled, the next
    /// waiter loads.
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

/// Removes a flight when its first caller leaves. Later callers ask again, the cache first.
struct FlightGuard<'a> {
    flights: &'a SingleFlight,
    key: &'a str,
    cell: Arc<OnceCell<Bytes>>,
}

impl Drop for FlightGuard<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.flights();
        // A caller that is cancelled leaves the flight to the others.
        let is_over = self.cell.initialized() || Arc::strong_count(&self.cell) == 2;
        if is_over && flights.get(self.key).is_some_and(|current| Arc::ptr_eq(current, &self.cell)) {
            flights.remove(self.key);
        }
    }
}
