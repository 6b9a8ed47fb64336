//! A cache in memory.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::Error;
use crate::ports::{Cache, CacheKey, CacheTicket, Lookup};
use crate::time::Month;

/// A cache in memory with a limited number of responses.
#[derive(Debug)]
pub struct MemoryCache {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Each response with the instant at which it expires.
    responses: HashMap<String, (Bytes, Instant)>,
    /// The number of invalidations of each month.
    versions: HashMap<Month, u64>,
    /// The number of invalidations of all months.
    epoch: u64,
}

impl MemoryCache {
    /// An empty cache for at most `capacity` responses.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new(10_000)
    }
}

impl State {
    /// The name of the key with the current versions of its months. After an invalidation the result is different.
    fn versioned(&self, key: &CacheKey) -> String {
        let mut name = key.name.clone();
        if !key.months.is_empty() {
            let _ = write!(name, "|{}", self.epoch);
        }
        for month in &key.months {
            let _ = write!(name, "|{}", self.versions.get(month).copied().unwrap_or(0));
        }
        name
    }
}

#[async_trait]
impl Cache for MemoryCache {
    async fn lookup(&self, key: &CacheKey) -> Result<Lookup, Error> {
        let state = self.lock();
        let name = state.versioned(key);
        Ok(match state.responses.get(&name) {
            Some((response, until)) if *until > Instant::now() => Lookup::Hit(response.clone()),
            _ => Lookup::Miss(CacheTicket::new(name)),
        })
    }

    async fn fill(&self, ticket: CacheTicket, response: Bytes, ttl: Duration) -> Result<(), Error> {
        let mut state = self.lock();
        let now = Instant::now();
        if state.responses.len() >= self.capacity {
            state.responses.retain(|_, (_, until)| *until > now);
        }
        if state.responses.len() >= self.capacity {
            state.responses.clear();
        }
        state.responses.insert(ticket.key().to_owned(), (response, now + ttl));
        Ok(())
    }

    async fn invalidate(&self, months: &[Month]) -> Result<(), Error> {
        let mut state = self.lock();
        for month in months {
            *state.versions.entry(*month).or_default() += 1;
        }
        Ok(())
    }

    async fn invalidate_all(&self) -> Result<(), Error> {
        self.lock().epoch += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testkit;

    #[tokio::test(start_paused = true)]
    async fn the_cache_passes_its_suite() {
        testkit::cache(async || Arc::new(MemoryCache::default())).await;
    }
}
