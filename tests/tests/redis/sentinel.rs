//! Redis behind Sentinel.

use std::sync::Arc;

use netagg_core::testkit;
use netagg_redis::RedisCache;
use netagg_tests::{eventually, redis};

use super::outages::{fails, works};
use super::{DEADLINE, at, cache};

#[tokio::test]
async fn it_conforms_behind_sentinel() {
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
    // An operator wants another one; then that one dies.
    let first = sentinel.master().await;
    sentinel.fail_over().await;
    let second = until_another_is_master(&sentinel, first).await;
    works(&cache).await;
    eventually(DEADLINE, "the former master follows", async || {
        let state = sentinel.ask(second, "INFO replication").await?;
        if state.contains("state=online") { Ok(()) } else { Err(state) }
    })
    .await;
    sentinel.crash_master().await;
    fails(&cache).await;
    until_another_is_master(&sentinel, second).await;
    works(&cache).await;
}

/// The port of the one that succeeds `master`.
async fn until_another_is_master(sentinel: &redis::Sentinel, master: u16) -> u16 {
    eventually(DEADLINE, "another master", async || match sentinel.master().await {
        same if same == master => Err(same.to_string()),
        other => Ok(other),
    })
    .await
}
