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
use netagg_core::{Error, testkit};
use netagg_redis::{RedisCache, RedisConfig};
use netagg_testkit::{eventually, redis};

/// How long a step of a test may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);
const TTL: Duration = Duration::from_secs(60);

/// A connected cache. Its calls may take as long as a busy machine needs.
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

/// The reply of `server` to `command`.
async fn command(server: &redis::Server, command: &str) -> String {
    redis::ask(server.port(), command).await.unwrap()
}

/// Checks that every call ends with the error that Redis is unavailable.
async fn fails(cache: &RedisCache) {
    let key = key("totals", &["2025-10"]);
    let calls = async {
        // These calls are enough to open the circuit, so the later calls do not reach Redis.
        for _ in 0..20 {
            let ticket = CacheTicket::new("netagg:1:answer:none");
            let errors = [
                cache.lookup(&key).await.map(drop).unwrap_err(),
                cache.fill(ticket, "answer".into(), TTL).await.unwrap_err(),
                cache.invalidate(&key.months).await.unwrap_err(),
                cache.invalidate_all().await.unwrap_err(),
                cache.ping().await.unwrap_err(),
            ];
            for error in errors {
                assert!(matches!(error, Error::Unavailable { dependency: "redis", .. }), "{error:?}");
            }
        }
    };
    tokio::time::timeout(DEADLINE, calls).await.expect("every call ends");
}

/// Waits until the cache works.
async fn works(cache: &RedisCache) {
    let key = key("totals", &["2025-10"]);
    eventually(DEADLINE, "a fill and a hit", async || {
        let text = |error: Error| error.to_string();
        cache.invalidate(&key.months).await.map_err(text)?;
        let Lookup::Miss(ticket) = cache.lookup(&key).await.map_err(text)? else {
            return Err("a hit after an invalidation".to_owned());
        };
        cache.fill(ticket, "answer".into(), TTL).await.map_err(text)?;
        match cache.lookup(&key).await.map_err(text)? {
            Lookup::Hit(answer) if answer == "answer" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn the_cache_conforms() {
    let server = redis::Server::start().await;
    let database = AtomicU8::new(0);
    testkit::cache(async || {
        let number = database.fetch_add(1, Ordering::Relaxed);
        Arc::new(cache(&format!("{}/{number}", server.url().trim_end_matches('/'))).await)
    })
    .await;
}

#[tokio::test]
async fn the_cache_needs_a_user_with_few_rights_only() {
    let server = redis::Server::start().await;
    let rights = "~netagg:* +get +set +del +mget +eval +info +ping";
    assert_eq!(command(&server, &format!("ACL SETUSER netagg on >secret {rights}")).await, "+OK\r\n");
    let cache = cache(&server.url().replace("redis://", "redis://netagg:secret@")).await;
    works(&cache).await;
    cache.invalidate_all().await.unwrap();
}
