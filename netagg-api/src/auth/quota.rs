//! The quota of each caller: how much of its rate limit is left.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::{DefaultDirectRateLimiter, RateLimiter};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::rate_limit::RateLimit;

/// The most callers that are told apart; beyond, those that have not asked for longest start anew.
const MAX_CALLERS: u64 = 65_536;

/// The longest period of a limit. Whoever has not asked for that long may ask as if for the first time, and need not be
/// remembered.
const LONGEST_PERIOD: Duration = Duration::from_secs(3_600);

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum CallerId {
    /// Who has shown who they are, wherever they ask from.
    Known(Arc<str>),
    /// Everybody at an address.
    At(IpAddr),
}

/// The part of a rate limit that is left to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    limit: u32,
    remaining: u32,
    /// Until all of the limit is there again.
    reset: Duration,
}

impl Quota {
    /// Writes the headers `RateLimit-Limit`, `-Remaining` and `-Reset`.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, self.limit.into());
        headers.insert(REMAINING, self.remaining.into());
        headers.insert(RESET, seconds(self.reset));
    }
}

/// Whole seconds, after which what is told of has come true.
pub(super) fn seconds(time: Duration) -> HeaderValue {
    HeaderValue::from(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// What each caller has left. Requests come back one by one, each after its share of the period, so that nobody gains by
/// waiting for the hour to strike.
#[derive(Debug)]
pub(super) struct Rates {
    callers: Cache<(CallerId, RateLimit), Arc<Limiter>>,
    clock: DefaultClock,
}

type Limiter =
    RateLimiter<governor::state::NotKeyed, governor::state::InMemoryState, DefaultClock, StateInformationMiddleware>;

impl Default for Rates {
    fn default() -> Self {
        let callers = Cache::builder()
            .max_capacity(MAX_CALLERS)
            .time_to_idle(LONGEST_PERIOD)
            // The default keeps the frequent ones and lets new ones go at once, unlimited.
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { callers, clock: DefaultClock::default() }
    }
}

impl Rates {
    /// Counts a request of `caller`.
    ///
    /// # Errors
    /// When there is nothing left: what is told then, and when the next one is.
    pub(super) fn count(&self, caller: CallerId, limit: RateLimit) -> Result<Quota, (Quota, Duration)> {
        let one = limit.period() / limit.requests().get();
        let limiter = self.callers.get_with((caller, limit), || {
            // A RateLimit has at most a request each microsecond: its share is never nothing.
            let quota = governor::Quota::with_period(one).unwrap_or(governor::Quota::per_second(limit.requests()));
            Arc::new(DefaultDirectRateLimiter::direct(quota.allow_burst(limit.requests())).with_middleware())
        });
        let standing = |remaining: u32| {
            let limit = limit.requests().get();
            Quota { limit, remaining, reset: one * (limit - remaining) }
        };
        match limiter.check() {
            Ok(state) => Ok(standing(state.remaining_burst_capacity().min(limit.requests().get()))),
            Err(not_until) => Err((standing(0), not_until.wait_time_from(self.clock.now()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: u32) -> CallerId {
        CallerId::At(IpAddr::from(address.to_be_bytes()))
    }

    #[test]
    fn each_caller_has_its_own() {
        let (rates, limit) = (Rates::default(), "3/h".parse().expect("valid"));
        for remaining in [2, 1, 0] {
            let standing = rates.count(at(1), limit).expect("something is left");
            assert_eq!((standing.limit, standing.remaining), (3, remaining));
            assert_eq!(standing.reset, Duration::from_secs(1_200) * (3 - remaining));
        }
        let (standing, wait) = rates.count(at(1), limit).expect_err("nothing is left");
        assert_eq!(standing.remaining, 0);
        assert!((1_100..=1_200).contains(&wait.as_secs()), "{wait:?}");
        assert!(rates.count(at(2), limit).is_ok());
        assert!(rates.count(CallerId::Known("1".into()), limit).is_ok());
        assert!(rates.count(at(1), "1/h".parse().expect("valid")).is_ok(), "another limit counts anew");
    }

    #[test]
    fn a_flood_of_callers_neither_grows_without_bound_nor_gets_through_unlimited() {
        let (rates, limit) = (Rates::default(), "1/h".parse().expect("valid"));
        for address in 0..2 * MAX_CALLERS as u32 {
            let _ = rates.count(at(address), limit);
        }
        rates.callers.run_pending_tasks();
        assert!(rates.callers.entry_count() <= MAX_CALLERS, "{}", rates.callers.entry_count());
        rates.count(CallerId::Known("newcomer".into()), limit).expect("the first");
        rates.callers.run_pending_tasks();
        rates.count(CallerId::Known("newcomer".into()), limit).expect_err("the second");
    }

    #[test]
    fn seconds_are_rounded_up() {
        for (millis, told) in [(0, "0"), (1, "1"), (1_000, "1"), (1_001, "2")] {
            assert_eq!(seconds(Duration::from_millis(millis)), told);
        }
    }
}
