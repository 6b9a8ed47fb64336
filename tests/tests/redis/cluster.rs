//! A Redis Cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use netagg_core::ports::{Cache, Lookup};
use netagg_core::testkit;
use netagg_redis::RedisCache;
use netagg_testkit::{eventually, redis};

use super::{DEADLINE, TTL, at, cache, fails, key, miss, until_it_answers, works};

/// Where the versions are.
const VERSIONS: &str = "netagg:1:{version}:all";

#[tokio::test]
async fn it_conforms_in_a_cluster_found_by_one_of_its_nodes() {
    let cluster = redis::Cluster::start().await;
    let fresh = async || {
        for port in cluster.ports() {
            // replicas refuse, and follow
            redis::ask(port, "FLUSHALL").await.unwrap();
        }
        Arc::new(cache(&cluster.url()).await)
    };
    testkit::cache(fresh).await;
}

#[tokio::test]
async fn versions_are_on_one_node_and_answers_on_all() {
    let cluster = redis::Cluster::start().await;
    let cache = cache(&cluster.url()).await;
    let mut answers = BTreeSet::new();
    for number in 0..50 {
        let ticket = miss(&cache, &key(&number.to_string(), &["2025-09", "2025-10"])).await;
        cache.fill(ticket.clone(), "answer".into(), TTL).await.unwrap();
        answers.insert(cluster.master_of(ticket.key()).await.unwrap());
    }
    assert_eq!(answers.len(), 3, "each master has some");
    let mut versions = BTreeSet::new();
    for month in ["all", "2025-09", "2025-10"] {
        let version = format!("netagg:1:{{version}}:{month}");
        let master = cluster.master_of(&version).await.unwrap();
        assert_eq!(redis::ask(master, &format!("EXISTS {version}")).await.unwrap(), ":1\r\n");
        versions.insert(master);
    }
    assert_eq!(versions.len(), 1);
}

#[tokio::test]
async fn a_replica_takes_over_from_a_master_that_dies() {
    let cluster = redis::Cluster::start().await;
    let master = cluster.master_of(VERSIONS).await.unwrap();
    // By this node alone, so that the others are known from it, and by nothing else when it is gone.
    let cache = RedisCache::new(at(&format!("redis-cluster://127.0.0.1:{master}"))).unwrap();
    works(&cache).await;
    let key = key("totals", &["2025-10"]);
    let answer = cache.lookup(&key).await.unwrap();
    assert!(matches!(answer, Lookup::Hit(_)), "{answer:?}");
    cluster.crash(master).await;
    fails(&cache).await;
    until_it_answers(&cache).await;
    // The successor may have lost an invalidation, so that nothing counts that was answered before.
    let found =
        eventually(DEADLINE, "a lookup", async || cache.lookup(&key).await.map_err(|error| error.to_string())).await;
    assert!(matches!(found, Lookup::Miss(_)), "{found:?}");
    works(&cache).await;
    assert_ne!(cluster.master_of(VERSIONS).await.unwrap(), master);
    // It comes back as a replica.
    cluster.start_again(master).await;
    works(&cache).await;
}
