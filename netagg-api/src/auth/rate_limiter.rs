//! The rate limiter. It counts the requests of each caller, and knows the quota of each caller: the part of its rate limit that
//! remains.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::{DefaultDirectRateLimiter, RateLimiter};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::rate_limit::RateLimit;

/// The maximum number of callers in memory. Beyond it, the callers whose last request is oldest are forgotten: their counts
/// start again from zero.
const MAX_CALLERS: u64 = 65_536;

/// The longest period of a limit. After this time without a request a caller has its full quota again, so its count can be
/// forgotten.
const LONGEST_PERIOD: Duration = Duration::from_secs(3_600);

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The id under which the requests of a caller are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum CallerId {
    /// An authenticated caller, at any address.
    Known(Arc<str>),
    /// All callers in the network of one address.
    At(IpAddr),
}

impl CallerId {
    /// The id of callers without an account, at the client address `address`.
    pub(super) fn at(address: IpAddr) -> Self {
        Self::At(network_of(address))
    }
}

/// The part of an address under which requests are counted. Of an IPv6 address only the /64 network counts, because one customer
/// gets a whole /64.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

/// The part of its rate limit that a caller has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    limit: u32,
    remaining: u32,
    /// The time until the full limit is available again.
    reset: Duration,
}

impl Quota {
    /// Writes the headers `RateLimit-Limit`, `-Remaining` and `-Reset`.
    pub(super) fn write_headers(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, self.limit.into());
        headers.insert(REMAINING, self.remaining.into());
        headers.insert(RESET, seconds(self.reset));
    }
}

/// `time` in whole seconds, rounded up: after this time the wait is certainly over.
pub(super) fn seconds(time: Duration) -> HeaderValue {
    HeaderValue::from(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// The quota of each caller. The quota refills one request at a time, evenly over the period. So a caller gains nothing by
/// waiting for the start of a new period.
#[derive(Debug)]
pub(super) struct CallerRateLimiter {
    callers: Cache<(CallerId, RateLimit), Arc<Limiter>>,
    clock: DefaultClock,
}

type Limiter =
    RateLimiter<governor::state::NotKeyed, governor::state::InMemoryState, DefaultClock, StateInformationMiddleware>;

impl Default for CallerRateLimiter {
    fn default() -> Self {
        let callers = Cache::builder()
            .max_capacity(MAX_CALLERS)
            .time_to_idle(LONGEST_PERIOD)
            // The default policy (TinyLFU) prefers frequent callers and would evict new callers at once. Then they would have
            // no limit.
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { callers, clock: DefaultClock::default() }
    }
}

impl CallerRateLimiter {
    /// Counts a request of `caller` and returns the remaining quota.
    ///
    /// # Errors
    /// If the quota is used up: the quota, and the time until the next request is accepted.
    pub(super) fn count(&self, caller: CallerId, limit: RateLimit) -> Result<Quota, (Quota, Duration)> {
        let interval = limit.period() / limit.requests().get();
        let limiter = self.callers.get_with((caller, limit), || {
            // A RateLimit has at most one request per microsecond, so the interval is never zero.
            let quota = governor::Quota::with_period(interval).unwrap_or(governor::Quota::per_second(limit.requests()));
            Arc::new(DefaultDirectRateLimiter::direct(quota.allow_burst(limit.requests())).with_middleware())
        });
        let quota = |remaining: u32| {
            let limit = limit.requests().get();
            Quota { limit, remaining, reset: interval * (limit - remaining) }
        };
        match limiter.check() {
            Ok(state) => Ok(quota(state.remaining_burst_capacity().min(limit.requests().get()))),
            Err(not_until) => Err((quota(0), not_until.wait_time_from(self.clock.now()))),
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
    fn all_addresses_of_an_ipv6_network_are_one_caller() {
        let at = |address: &str| CallerId::at(address.parse().expect("an address"));
        assert_eq!(at("2001:db8:1:2:3:4:5:6"), at("2001:db8:1:2::9"));
        assert_ne!(at("2001:db8:1:2::9"), at("2001:db8:1:3::9"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
    }

    #[test]
    fn each_caller_has_its_own_quota() {
        let (limiter, limit) = (CallerRateLimiter::default(), "3/h".parse().expect("valid"));
        for remaining in [2, 1, 0] {
            let quota = limiter.count(at(1), limit).expect("quota remains");
            assert_eq!((quota.limit, quota.remaining), (3, remaining));
            assert_eq!(quota.reset, Duration::from_secs(1_200) * (3 - remaining));
        }
        let (quota, wait) = limiter.count(at(1), limit).expect_err("the quota is used up");
        assert_eq!(quota.remaining, 0);
        assert!((1_100..=1_200).contains(&wait.as_secs()), "{wait:?}");
        assert!(limiter.count(at(2), limit).is_ok());
        assert!(limiter.count(CallerId::Known("1".into()), limit).is_ok());
        assert!(limiter.count(at(1), "1/h".parse().expect("valid")).is_ok(), "another limit has its own count");
    }

    #[test]
    fn a_flood_of_callers_is_bounded_in_memory_and_still_limited() {
        let (limiter, limit) = (CallerRateLimiter::default(), "1/h".parse().expect("valid"));
        for address in 0..2 * MAX_CALLERS as u32 {
            let _ = limiter.count(at(address), limit);
        }
        limiter.callers.run_pending_tasks();
        assert!(limiter.callers.entry_count() <= MAX_CALLERS, "{}", limiter.callers.entry_count());
        limiter.count(CallerId::Known("newcomer".into()), limit).expect("the first request is accepted");
        limiter.callers.run_pending_tasks();
        limiter.count(CallerId::Known("newcomer".into()), limit).expect_err("the second request exceeds the limit");
    }

    #[test]
    fn seconds_are_rounded_up() {
        for (millis, expected) in [(0, "0"), (1, "1"), (1_000, "1"), (1_001, "2")] {
            assert_eq!(seconds(Duration::from_millis(millis)), expected);
        }
    }
}
