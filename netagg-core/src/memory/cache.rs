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

/// Keeps a bounded number of answers.
#[derive(Debug)]
pub struct MemoryCache {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    answers: HashMap<String, (Bytes, Instant)>,
    /// How often each month was invalidated.
    versions: HashMap<Month, u64>,
    /// How often all months were.
    epoch: u64,
}

impl MemoryCache {
    /// An empty cache for at most `capacity` answers.
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
    /// The key's name and the versions of its months: an invalidation makes it another one.
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
        Ok(match state.answers.get(&name) {
            Some((answer, until)) if *until > Instant::now() => Lookup::Hit(answer.clone()),
            _ => Lookup::Miss(CacheTicket::new(name)),
        })
    }

    async fn fill(&self, ticket: CacheTicket, answer: Bytes, ttl: Duration) -> Result<(), Error> {
        let mut state = self.lock();
        let now = Instant::now();
        if state.answers.len() >= self.capacity {
            state.answers.retain(|_, (_, until)| *until > now);
        }
        if state.answers.len() >= self.capacity {
            state.answers.clear();
        }
        state.answers.insert(ticket.key().to_owned(), (answer, now + ttl));
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
    async fn it_conforms() {
        testkit::cache(async || Arc::new(MemoryCache::default())).await;
    }
}
