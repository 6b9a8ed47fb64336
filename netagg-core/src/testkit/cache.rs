//! The test suite for caches.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::ports::{Cache, CacheKey, CacheTicket, Lookup};
use crate::time::Month;

const LONG: Duration = Duration::from_secs(60);
/// The time after which an expired response must be gone.
const DEADLINE: Duration = Duration::from_secs(60);

/// Tests every behaviour that [`Cache`] promises. `fresh` makes an empty cache that is not used elsewhere.
pub async fn cache<C: Cache + ?Sized>(fresh: impl AsyncFn() -> Arc<C>) {
    a_response_is_cached_until_it_expires(&*fresh().await).await;
    an_invalidation_makes_responses_of_its_months_stale(&*fresh().await).await;
    a_response_computed_before_an_invalidation_is_never_returned(&*fresh().await).await;
}

fn month(text: &str) -> Month {
    text.parse().expect("a month")
}

fn key(name: &str, months: &[&str]) -> CacheKey {
    CacheKey { name: name.to_owned(), months: months.iter().map(|text| month(text)).collect() }
}

async fn hit<C: Cache + ?Sized>(cache: &C, key: &CacheKey) -> Option<Bytes> {
    match cache.lookup(key).await.expect("a lookup") {
        Lookup::Hit(response) => Some(response),
        Lookup::Miss(_) => None,
    }
}

async fn ticket<C: Cache + ?Sized>(cache: &C, key: &CacheKey) -> CacheTicket {
    match cache.lookup(key).await.expect("a lookup") {
        Lookup::Miss(ticket) => ticket,
        Lookup::Hit(response) => panic!("found a hit, expected a miss: {response:?}"),
    }
}

async fn fill<C: Cache + ?Sized>(cache: &C, key: &CacheKey, response: &'static [u8], ttl: Duration) {
    cache.fill(ticket(cache, key).await, Bytes::from_static(response), ttl).await.expect("filled");
}

async fn a_response_is_cached_until_it_expires<C: Cache + ?Sized>(cache: &C) {
    let (one, other) = (key("one", &["2025-10"]), key("other", &["2025-10"]));
    fill(cache, &one, b"\0any bytes\xff", LONG).await;
    assert_eq!(hit(cache, &one).await.as_deref(), Some(&b"\0any bytes\xff"[..]));
    assert_eq!(hit(cache, &other).await, None, "another name is another key");

    fill(cache, &other, b"short", Duration::from_millis(50)).await;
    let expired = async {
        while hit(cache, &other).await.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, expired).await.expect("an expired response is gone");
}

async fn an_invalidation_makes_responses_of_its_months_stale<C: Cache + ?Sized>(cache: &C) {
    let autumn = key("autumn", &["2025-09", "2025-10", "2025-11"]);
    let october = key("october", &["2025-10"]);
    let december = key("december", &["2025-12"]);
    let ageing = key("ageing", &[]);
    for key in [&autumn, &october, &december, &ageing] {
        fill(cache, key, b"response", LONG).await;
    }
    cache.invalidate(&[month("2025-11"), month("2024-01")]).await.expect("invalidated");
    assert_eq!(hit(cache, &autumn).await, None);
    assert!(hit(cache, &october).await.is_some());
    fill(cache, &autumn, b"again", LONG).await;
    assert_eq!(hit(cache, &autumn).await.as_deref(), Some(&b"again"[..]));

    cache.invalidate_all().await.expect("invalidated");
    for key in [&autumn, &october, &december] {
        assert_eq!(hit(cache, key).await, None, "{key:?}");
    }
    assert!(hit(cache, &ageing).await.is_some(), "a response without months only expires");
}

async fn a_response_computed_before_an_invalidation_is_never_returned<C: Cache + ?Sized>(cache: &C) {
    let key = key("race", &["2025-10", "2025-11"]);
    // A reader misses and reads the old totals. Then the totals change. Then the reader fills the cache.
    for all in [false, true] {
        let stale = ticket(cache, &key).await;
        if all {
            cache.invalidate_all().await.expect("invalidated");
        } else {
            cache.invalidate(&[month("2025-11")]).await.expect("invalidated");
        }
        cache.fill(stale.clone(), Bytes::from_static(b"old"), LONG).await.expect("filled");
        assert_eq!(hit(cache, &key).await, None);
        fill(cache, &key, b"new", LONG).await;
        cache.fill(stale, Bytes::from_static(b"old"), LONG).await.expect("filled");
        assert_eq!(hit(cache, &key).await.as_deref(), Some(&b"new"[..]));
        cache.invalidate(&[month("2025-10")]).await.expect("invalidated");
    }
}
