//! One load at a time for what many ask for at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::Error;

/// The loads under way, by what they are to fill.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<HashMap<String, Arc<OnceCell<Bytes>>>>);

impl Flights {
    /// What `load` gives, or what the load of `key` gives that is under way. After one that fails, or is cancelled, the
    /// next of those that wait for it loads.
    pub(super) async fn join(
        &self,
        key: &str,
        load: impl Future<Output = Result<Bytes, Error>>,
    ) -> Result<Bytes, Error> {
        let cell = self.flights().entry(key.to_owned()).or_default().clone();
        let landing = Landing { flights: self, key, cell };
        landing.cell.get_or_try_init(|| load).await.cloned()
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<String, Arc<OnceCell<Bytes>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a flight when its first passenger leaves: whoever comes later asks anew, the cache first.
struct Landing<'a> {
    flights: &'a Flights,
    key: &'a str,
    cell: Arc<OnceCell<Bytes>>,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut flights = self.flights.flights();
        // One who is cancelled leaves the others together.
        let is_over = self.cell.initialized() || Arc::strong_count(&self.cell) == 2;
        if is_over && flights.get(self.key).is_some_and(|current| Arc::ptr_eq(current, &self.cell)) {
            flights.remove(self.key);
        }
    }
}
