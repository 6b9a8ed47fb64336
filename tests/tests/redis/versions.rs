//! No stale response is returned after keys of the cache were evicted, flushed or restored.

use std::time::Duration;

use bytes::Bytes;
use netagg_core::ports::Cache;
use netagg_redis::RedisCache;
use netagg_testkit::redis;

use super::{DEADLINE, TTL, at, cache, command, hit, key, miss, until_it_answers};

const OLD: Bytes = Bytes::from_static(b"old");
const NEW: Bytes = Bytes::from_static(b"new");

#[tokio::test]
async fn an_evicted_version_returns_no_stale_response() {
    let server = redis::Server::start().await;
    let cache = cache(&server.url()).await;
    for evicted in ["netagg:1:{version}:2025-10", "netagg:1:{version}:all"] {
        let key = key(evicted, &["2025-09", "2025-10"]);
        let before = miss(&cache, &key).await;
        cache.fill(before.clone(), OLD, TTL).await.unwrap();
        assert_eq!(hit(&cache, &key).await, OLD);

        assert_eq!(command(&server, &format!("DEL {evicted}")).await, ":1\r\n");
        let after = miss(&cache, &key).await;
        assert_ne!(before, after);
        // The totals change before both readers fill the cache, and the version is evicted again.
        cache.invalidate(&key.months).await.unwrap();
        command(&server, &format!("DEL {evicted}")).await;
        for ticket in [before, after] {
            cache.fill(ticket, OLD, TTL).await.unwrap();
            miss(&cache, &key).await;
        }
        cache.fill(miss(&cache, &key).await, NEW, TTL).await.unwrap();
        assert_eq!(hit(&cache, &key).await, NEW);
    }
}

#[tokio::test]
async fn a_flush_between_lookup_and_fill_makes_the_ticket_invalid() {
    let server = redis::Server::start().await;
    let cache = cache(&server.url()).await;
    let key = key("totals", &["2025-10"]);
    let ticket = miss(&cache, &key).await;
    assert_eq!(command(&server, "FLUSHALL").await, "+OK\r\n");
    cache.fill(ticket, OLD, TTL).await.unwrap();
    miss(&cache, &key).await;
}

#[tokio::test]
async fn concurrent_readers_agree_on_a_missing_version() {
    let server = redis::Server::start().await;
    let cache = cache(&server.url()).await;
    let key = key("totals", &["2025-10", "2025-11", "2025-12"]);
    for _ in 0..50 {
        command(&server, "FLUSHALL").await;
        let (one, two, three) = tokio::join!(miss(&cache, &key), miss(&cache, &key), miss(&cache, &key));
        assert!(one == two && two == three);
        assert_eq!(miss(&cache, &key).await, one);
    }
}

#[tokio::test]
async fn sizes_and_times_are_bounded() {
    let server = redis::Server::start().await;
    let mut config = at(&server.url());
    config.timeout = DEADLINE;
    config.max_ttl = Duration::from_secs(10);
    config.max_answer_bytes = 100;
    let cache = RedisCache::new(config).unwrap();
    until_it_answers(&cache).await;
    let key = key("totals", &[]);
    let ticket = miss(&cache, &key).await;
    cache.fill(ticket.clone(), vec![b'x'; 101].into(), TTL).await.unwrap();
    cache.fill(ticket.clone(), OLD, Duration::from_nanos(1)).await.unwrap();
    miss(&cache, &key).await;
    cache.fill(ticket.clone(), vec![b'x'; 100].into(), Duration::MAX).await.unwrap();
    assert_eq!(hit(&cache, &key).await.len(), 100);
    let left = command(&server, &format!("PTTL {}", ticket.key())).await;
    let left: u64 = left.trim().trim_start_matches(':').parse().unwrap();
    assert!((1..=10_000).contains(&left), "{left}");
    // Every key expires.
    cache.invalidate(&["2025-10".parse().unwrap()]).await.unwrap();
    cache.invalidate_all().await.unwrap();
    for version in ["2025-10", "all"] {
        let left = command(&server, &format!("TTL netagg:1:{{version}}:{version}")).await;
        assert!(left.trim().trim_start_matches(':').parse::<i64>().unwrap() > 0, "{left}");
    }
}

#[tokio::test]
async fn every_key_names_its_schema() {
    let server = redis::Server::start().await;
    let cache = cache(&server.url()).await;
    for months in [&["2025-09", "2025-10"][..], &[]] {
        cache.fill(miss(&cache, &key("totals", months)).await, OLD, TTL).await.unwrap();
    }
    cache.invalidate(&["2025-11".parse().unwrap()]).await.unwrap();
    cache.invalidate_all().await.unwrap();
    let keys = command(&server, "KEYS *").await;
    // The reply begins with the number of keys, and each key follows its length.
    let keys: Vec<_> = keys.lines().skip(1).filter(|line| !line.starts_with('$')).collect();
    assert_eq!(keys.len(), 2 + 4, "two responses and four versions: {keys:?}");
    assert!(keys.iter().all(|key| key.starts_with("netagg:1:")), "{keys:?}");
}

#[tokio::test]
async fn a_server_that_starts_from_an_old_snapshot_returns_no_stale_response() {
    let server = redis::Server::start().await;
    let cache = cache(&server.url()).await;
    let key = key("totals", &["2025-10"]);
    cache.fill(miss(&cache, &key).await, OLD, TTL).await.unwrap();
    command(&server, "SAVE").await;
    cache.invalidate(&key.months).await.unwrap();
    server.crash().await;
    server.start_again().await;
    let kept = command(&server, "DBSIZE").await;
    assert_eq!(kept, ":3\r\n", "a response and two versions");
    // The reader is a new cache, because the old cache would repeat its invalidation to the server.
    let reader = super::cache(&server.url()).await;
    miss(&reader, &key).await;
}
