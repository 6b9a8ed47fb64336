//! `netagg-redis` with Redis Sentinel.

use std::sync::Arc;

use netagg_core::ports::{Cache, Lookup};
use netagg_core::testkit;
use netagg_redis::RedisCache;
use netagg_testkit::{eventually, redis};

use super::{DEADLINE, TTL, at, cache, hit, key, miss, works};

#[tokio::test]
async fn the_cache_conforms_with_sentinel() {
    let sentinel = redis::Sentinel::start().await;
    let fresh = async || {
        sentinel.ask(sentinel.master().await, "FLUSHALL").await.unwrap();
        Arc::new(cache(&sentinel.url()).await)
    };
    testkit::cache(fresh).await;
}

#[tokio::test]
async fn the_new_master_is_found_after_a_failover() {
    let sentinel = redis::Sentinel::start().await;
    let cache = RedisCache::new(at(&sentinel.url())).unwrap();
    works(&cache).await;
    // An operator makes the replica the master. Later this new master dies.
    let first = sentinel.master().await;
    sentinel.fail_over().await;
    let second = until_another_is_master(&sentinel, first).await;
    works(&cache).await;
    eventually(DEADLINE, "the former master follows", async || {
        let state = sentinel.ask(second, "INFO replication").await?;
        if state.contains("state=online") { Ok(()) } else { Err(state) }
    })
    .await;
    // From here on calls fail until the failover, which may happen at any moment.
    sentinel.crash_master().await;
    until_another_is_master(&sentinel, second).await;
    works(&cache).await;
}

/// Waits until another server than `master` is the master. Returns its port.
async fn until_another_is_master(sentinel: &redis::Sentinel, master: u16) -> u16 {
    eventually(DEADLINE, "another master", async || match sentinel.master().await {
        same if same == master => Err(same.to_string()),
        other => Ok(other),
    })
    .await
}

#[tokio::test]
async fn an_invalidation_that_was_not_replicated_to_the_new_master_still_applies() {
    let sentinel = redis::Sentinel::start().await;
    let cache = cache(&sentinel.url()).await;
    let key = key("totals", &["2025-10"]);
    cache.fill(miss(&cache, &key).await, "old".into(), TTL).await.unwrap();
    assert_eq!(hit(&cache, &key).await, "old");
    let (master, replica) = (sentinel.master().await, sentinel.replica().await);
    assert_eq!(sentinel.ask(master, "WAIT 1 0").await.unwrap(), ":1\r\n", "the replica has the response");

    // From now on the replica gets no changes, because it follows a master that does not exist.
    assert_eq!(sentinel.ask(replica, "REPLICAOF 127.0.0.1 1").await.unwrap(), "+OK\r\n");
    cache.invalidate(&key.months).await.unwrap();
    sentinel.crash_master().await;
    assert_eq!(until_another_is_master(&sentinel, master).await, replica);
    assert!(
        !sentinel.ask(replica, "KEYS netagg:1:answer:*").await.unwrap().starts_with("*0"),
        "the replica still has the response"
    );
    let found =
        eventually(DEADLINE, "a lookup", async || cache.lookup(&key).await.map_err(|error| error.to_string())).await;
    assert!(matches!(found, Lookup::Miss(_)), "{found:?}");
}
