//! Outages of Redis.

use std::time::Duration;

use netagg_core::Error;
use netagg_core::ports::{Cache, CacheKey, CacheTicket, Lookup};
use netagg_redis::{RedisCache, RedisConfig};
use netagg_testkit::{eventually, redis};

use super::{DEADLINE, TTL, at, cache, command, fails, hit, key, miss, until_it_answers, works};
use crate::support::proxy::Proxy;

#[tokio::test]
async fn a_crash_loses_only_cached_responses() {
    let server = redis::Server::start().await;
    let cache = RedisCache::new(at(&server.url())).unwrap();
    works(&cache).await;
    for _ in 0..2 {
        server.crash().await;
        fails(&cache).await;
        server.start_again().await;
        works(&cache).await;
    }
}

#[tokio::test]
async fn the_cache_does_not_ask_a_server_that_hangs_until_it_responds() {
    let server = redis::Server::start().await;
    let cache = RedisCache::new(at(&server.url())).unwrap();
    works(&cache).await;
    server.pause().await;
    fails(&cache).await;
    server.resume().await;
    works(&cache).await;
}

#[tokio::test]
async fn a_cache_can_start_without_a_server() {
    let server = redis::Server::start().await;
    server.crash().await;
    let cache = RedisCache::new(at(&server.url())).unwrap();
    fails(&cache).await;
    server.start_again().await;
    works(&cache).await;
}

#[tokio::test]
async fn a_wrong_password_may_be_corrected_later() {
    let server = redis::Server::start().await;
    command(&server, "CONFIG SET requirepass secret").await;
    let cache = RedisCache::new(at(&server.url())).unwrap();
    fails(&cache).await;
    command(&server, "AUTH secret\r\nCONFIG SET requirepass \"\"").await;
    until_it_answers(&cache).await;
    works(&cache).await;
}

#[tokio::test]
async fn a_full_server_returns_no_stale_response() {
    let server = redis::Server::start().await;
    let cache = cache(&server.url()).await;
    let key = key("full", &["2025-10"]);
    cache.fill(miss(&cache, &key).await, "old".into(), TTL).await.unwrap();
    assert_eq!(hit(&cache, &key).await, "old");
    command(&server, "CONFIG SET maxmemory 1").await;
    cache.invalidate(&key.months).await.unwrap();
    for _ in 0..3 {
        let found = cache.lookup(&key).await;
        assert!(!matches!(found, Ok(Lookup::Hit(_))), "{found:?}");
    }
    command(&server, "CONFIG SET maxmemory 0").await;
    works(&cache).await;
    assert_ne!(cache.lookup(&key).await.unwrap(), Lookup::Hit("old".into()));
}

#[tokio::test]
async fn calls_to_a_slow_server_time_out_and_late_replies_are_dropped() {
    let server = redis::Server::start().await;
    let proxy = Proxy::start(server.port()).await;
    let cache = RedisCache::new(at(&format!("redis://127.0.0.1:{}", proxy.port()))).unwrap();
    works(&cache).await;
    // Slow, but within the timeout of a call.
    proxy.slow(Duration::from_millis(5));
    works(&cache).await;
    // Slower than the timeout of a call.
    proxy.slow(Duration::from_millis(300));
    fails(&cache).await;
    proxy.pass();
    works(&cache).await;
    let keys: Vec<_> = (0..100).map(|number| key(&number.to_string(), &["2025-10"])).collect();
    // On a busy machine a call may time out, so the test repeats it.
    let fill = async |key: &CacheKey| {
        eventually(DEADLINE, "a fill", async || {
            let text = |error: Error| error.to_string();
            match cache.lookup(key).await.map_err(text)? {
                Lookup::Miss(ticket) => cache.fill(ticket, key.name.clone().into(), TTL).await.map_err(text),
                Lookup::Hit(found) if found == key.name => Ok(()),
                Lookup::Hit(found) => Err(format!("{found:?}")),
            }
        })
        .await;
    };
    for key in &keys {
        fill(key).await;
    }
    proxy.slow(Duration::from_millis(60));
    let late = futures::future::join_all(keys.iter().map(|key| cache.lookup(key))).await;
    assert!(late.iter().any(Result::is_err), "the delay was too long for some calls");
    proxy.pass();
    works(&cache).await;
    for key in &keys {
        eventually(DEADLINE, "a lookup", async || match cache.lookup(key).await {
            Ok(Lookup::Miss(_)) => Ok(()),
            Ok(Lookup::Hit(_)) => panic!("{key:?} is outdated"),
            Err(error) => Err(error.to_string()),
        })
        .await;
        fill(key).await;
        eventually(DEADLINE, "a hit", async || match cache.lookup(key).await {
            Ok(Lookup::Hit(found)) => {
                assert_eq!(found, key.name);
                Ok(())
            }
            other => Err(format!("{other:?}")),
        })
        .await;
    }
}

#[tokio::test]
async fn after_a_few_failures_no_call_waits_for_a_server_that_hangs() {
    let server = redis::Server::start().await;
    let mut config = at(&server.url());
    config.timeout = Duration::from_secs(1);
    let cache = RedisCache::new(config).unwrap();
    works(&cache).await;
    server.pause().await;
    let key = key("totals", &["2025-10"]);
    let calls = async {
        for _ in 0..1_000 {
            cache.lookup(&key).await.unwrap_err();
            cache.fill(CacheTicket::new("netagg:1:answer:none"), "answer".into(), TTL).await.unwrap_err();
        }
    };
    tokio::time::timeout(DEADLINE, calls)
        .await
        .expect("only the first calls wait; if each call waited, this would take half an hour");
    server.resume().await;
    works(&cache).await;
}

#[tokio::test]
async fn invalidations_are_repeated_on_a_server_that_takes_over() {
    let (old, new) = tokio::join!(redis::Server::start(), redis::Server::start());
    let proxy = Proxy::start(old.port()).await;
    let writer = cache(&format!("redis://127.0.0.1:{}", proxy.port())).await;
    let reader = cache(&new.url()).await;
    let key = key("totals", &["2025-10"]);
    reader.fill(miss(&reader, &key).await, "old".into(), TTL).await.unwrap();
    // The readers use the new server already, but the writer has not noticed the change yet.
    writer.invalidate(&key.months).await.unwrap();
    assert_eq!(hit(&reader, &key).await, "old");
    proxy.redirect_to(new.port());
    eventually(DEADLINE, "the reader misses", async || match reader.lookup(&key).await.unwrap() {
        Lookup::Miss(_) => Ok(()),
        found => Err(format!("{found:?}")),
    })
    .await;
}

/// Waits until a call fails with a reason that contains `text`.
async fn fails_with(cache: &RedisCache, text: &str) {
    eventually(DEADLINE, text, async || match cache.ping().await {
        Err(error) if error.to_string().contains(text) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn errors_contain_the_reason_of_the_server() {
    let server = redis::Server::start().await;
    let port = server.port();
    let to = |login: &str, database: &str| {
        let url = format!("redis://{login}127.0.0.1:{port}/{database}");
        let mut config = at(&url);
        config.timeout = Duration::from_secs(5);
        RedisCache::new(config).unwrap()
    };
    fails_with(&to("", "99"), "ERR DB index is out of range").await;
    fails_with(&to("unknown_user:wrong@", "0"), "WRONGPASS").await;
    command(&server, "ACL SETUSER limited on >secret ~* +@connection +info +client").await;
    let limited = to("limited:secret@", "0");
    // This server is alive, but the cache cannot use it. So the check of readiness must fail.
    fails_with(&limited, "NOPERM").await;
    let error = limited.lookup(&key("totals", &["2025-10"])).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("NOPERM"), "{error}");
    command(&server, "CONFIG SET requirepass s3cret").await;
    let unknown = to("", "0");
    fails_with(&unknown, "NOAUTH").await;
    let text = unknown.ping().await.unwrap_err().to_string();
    assert!(!text.contains("Error {") && !text.contains("kind:"), "{text}");

    let stopped = redis::Server::start().await;
    stopped.stop().await;
    fails_with(&RedisCache::new(at(&stopped.url())).unwrap(), "Connection refused").await;
}

#[tokio::test]
async fn tls_works_although_several_crypto_providers_are_compiled_in() {
    for scheme in ["rediss", "rediss-cluster", "rediss-sentinel"] {
        let url = format!("{scheme}://127.0.0.1:1?sentinelServiceName=main");
        drop(RedisCache::new(RedisConfig::from_url(&url).unwrap()).unwrap());
    }
}

#[tokio::test]
async fn the_cache_does_not_read_from_a_server_that_rejects_writes() {
    let server = redis::Server::start().await;
    let reader = RedisCache::new(at(&server.url())).unwrap();
    reader.connected().await;
    let key = key("page", &["2025-10"]);
    let Lookup::Miss(ticket) = reader.lookup(&key).await.unwrap() else { panic!("a hit in an empty cache") };
    reader.fill(ticket, "answer".into(), TTL).await.unwrap();
    assert!(matches!(reader.lookup(&key).await, Ok(Lookup::Hit(_))));

    // A replica would accept reads, but an invalidation cannot be written to it.
    command(&server, "REPLICAOF 127.0.0.1 1").await;
    let error = reader.ping().await.unwrap_err();
    assert!(error.to_string().contains("READONLY"), "{error}");
    let error = reader.lookup(&key).await.map(drop).unwrap_err();
    assert!(error.is_retryable(), "{error}");
    command(&server, "REPLICAOF NO ONE").await;
    eventually(DEADLINE, "lookups succeed again", async || match reader.lookup(&key).await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    })
    .await;
    reader.ping().await.unwrap();
}
