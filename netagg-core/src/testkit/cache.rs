//! The behaviours of a cache.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::ports::{Cache, CacheKey, CacheTicket, Lookup};
use crate::time::Month;

const LONG: Duration = Duration::from_secs(60);
/// How long an expired answer may linger.
const DEADLINE: Duration = Duration::from_secs(60);

/// Every behaviour that [`Cache`] promises. `fresh` makes a cache that nothing else uses.
pub async fn cache<C: Cache + ?Sized>(fresh: impl AsyncFn() -> Arc<C>) {
    an_answer_is_kept_until_it_expires(&*fresh().await).await;
    an_invalidation_makes_answers_of_its_months_stale(&*fresh().await).await;
    an_answer_computed_before_an_invalidation_never_comes_back(&*fresh().await).await;
}

fn month(text: &str) -> Month {
    text.parse().expect("a month")
}

fn key(name: &str, months: &[&str]) -> CacheKey {
    CacheKey { name: name.to_owned(), months: months.iter().map(|text| month(text)).collect() }
}

async fn hit<C: Cache + ?Sized>(cache: &C, key: &CacheKey) -> Option<Bytes> {
    match cache.lookup(key).await.expect("a lookup") {
        Lookup::Hit(answer) => Some(answer),
        Lookup::Miss(_) => None,
    }
}

async fn ticket<C: Cache + ?Sized>(cache: &C, key: &CacheKey) -> CacheTicket {
    match cache.lookup(key).await.expect("a lookup") {
        Lookup::Miss(ticket) => ticket,
        Lookup::Hit(answer) => panic!("a hit where a miss was expected: {answer:?}"),
    }
}

async fn fill<C: Cache + ?Sized>(cache: &C, key: &CacheKey, answer: &'static [u8], ttl: Duration) {
    cache.fill(ticket(cache, key).await, Bytes::from_static(answer), ttl).await.expect("filled");
}

async fn an_answer_is_kept_until_it_expires<C: Cache + ?Sized>(cache: &C) {
    let (one, other) = (key("one", &["2025-10"]), key("other", &["2025-10"]));
    fill(cache, &one, b"\0any bytes\xff", LONG).await;
    assert_eq!(hit(cache, &one).await.as_deref(), Some(&b"\0any bytes\xff"[..]));
    assert_eq!(hit(cache, &other).await, None, "names are apart");

    fill(cache, &other, b"short", Duration::from_millis(50)).await;
    let expired = async {
        while hit(cache, &other).await.is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, expired).await.expect("an answer goes when its time is over");
}

async fn an_invalidation_makes_answers_of_its_months_stale<C: Cache + ?Sized>(cache: &C) {
    let autumn = key("autumn", &["2025-09", "2025-10", "2025-11"]);
    let october = key("october", &["2025-10"]);
    let december = key("december", &["2025-12"]);
    let ageing = key("ageing", &[]);
    for key in [&autumn, &october, &december, &ageing] {
        fill(cache, key, b"answer", LONG).await;
    }
    cache.invalidate(&[month("2025-11"), month("2024-01")]).await.expect("invalidated");
    assert_eq!(hit(cache, &autumn).await, None);
    assert!(hit(cache, &october).await.is_some());
    fill(cache, &autumn, b"anew", LONG).await;
    assert_eq!(hit(cache, &autumn).await.as_deref(), Some(&b"anew"[..]));

    cache.invalidate_all().await.expect("invalidated");
    for key in [&autumn, &october, &december] {
        assert_eq!(hit(cache, key).await, None, "{key:?}");
    }
    assert!(hit(cache, &ageing).await.is_some(), "what depends on no month only ages");
}

async fn an_answer_computed_before_an_invalidation_never_comes_back<C: Cache + ?Sized>(cache: &C) {
    let key = key("race", &["2025-10", "2025-11"]);
    // A reader looks up, and reads the old totals; then they change; then the reader fills.
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
