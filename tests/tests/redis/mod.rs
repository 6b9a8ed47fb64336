//! `netagg-redis` against a real Redis.

mod cluster;
mod outages;
mod sentinel;
mod service;
mod versions;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use netagg_core::ports::{Cache, CacheKey, CacheTicket, Lookup};
use netagg_core::testkit;
use netagg_redis::{RedisCache, RedisConfig};
use netagg_tests::{eventually, redis};

/// How long anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);
const TTL: Duration = Duration::from_secs(60);

/// A cache whose calls may take as long as a busy machine needs, connected.
async fn cache(url: &str) -> RedisCache {
    let mut config = at(url);
    config.timeout = DEADLINE;
    let cache = RedisCache::new(config).unwrap();
    until_it_answers(&cache).await;
    cache
}

fn at(url: &str) -> RedisConfig {
    let mut config = RedisConfig::default();
    url.clone_into(&mut config.url);
    config
}

async fn until_it_answers(cache: &RedisCache) {
    eventually(DEADLINE, "redis", async || cache.ping().await.map_err(|error| error.to_string())).await;
}

fn key(name: &str, months: &[&str]) -> CacheKey {
    CacheKey { name: name.to_owned(), months: months.iter().map(|month| month.parse().unwrap()).collect() }
}

async fn miss(cache: &RedisCache, key: &CacheKey) -> CacheTicket {
    match cache.lookup(key).await.unwrap() {
        Lookup::Miss(ticket) => ticket,
        Lookup::Hit(answer) => panic!("a hit: {answer:?}"),
    }
}

async fn hit(cache: &RedisCache, key: &CacheKey) -> Bytes {
    match cache.lookup(key).await.unwrap() {
        Lookup::Hit(answer) => answer,
        Lookup::Miss(_) => panic!("a miss"),
    }
}

/// What `server` answers to `command`.
async fn command(server: &redis::Server, command: &str) -> String {
    redis::ask(server.port(), command).await.unwrap()
}

#[tokio::test]
async fn it_conforms() {
    let server = redis::Server::start().await;
    let database = AtomicU8::new(0);
    testkit::cache(async || {
        let number = database.fetch_add(1, Ordering::Relaxed);
        Arc::new(cache(&format!("{}/{number}", server.url().trim_end_matches('/'))).await)
    })
    .await;
}

#[tokio::test]
async fn a_user_with_few_rights_is_enough() {
    let server = redis::Server::start().await;
    let rights = "~netagg:* +get +set +del +mget +eval +info +ping";
    assert_eq!(command(&server, &format!("ACL SETUSER netagg on >secret {rights}")).await, "+OK\r\n");
    let cache = cache(&server.url().replace("redis://", "redis://netagg:secret@")).await;
    outages::works(&cache).await;
    cache.invalidate_all().await.unwrap();
}
