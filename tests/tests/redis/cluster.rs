//! `netagg-redis` with a Redis Cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use netagg_core::ports::{Cache, Lookup};
use netagg_core::testkit;
use netagg_redis::RedisCache;
use netagg_testkit::{eventually, redis};

use super::{DEADLINE, TTL, at, cache, fails, key, miss, until_it_answers, works};

/// A key of the versions. All versions are on the same node.
const VERSIONS: &str = "netagg:1:{version}:all";

#[tokio::test]
async fn the_cache_conforms_in_a_cluster_whose_address_names_a_single_node() {
    let cluster = redis::Cluster::start().await;
    let fresh = async || {
        for port in cluster.ports() {
            // Replicas reject the command, and follow their master.
            redis::ask(port, "FLUSHALL").await.unwrap();
        }
        Arc::new(cache(&cluster.url()).await)
    };
    testkit::cache(fresh).await;
}

#[tokio::test]
async fn versions_are_on_one_node_and_responses_on_all_nodes() {
    let cluster = redis::Cluster::start().await;
    let cache = cache(&cluster.url()).await;
    let mut answers = BTreeSet::new();
    for number in 0..50 {
        let ticket = miss(&cache, &key(&number.to_string(), &["2025-09", "2025-10"])).await;
        cache.fill(ticket.clone(), "answer".into(), TTL).await.unwrap();
        answers.insert(cluster.master_of(ticket.key()).await.unwrap());
    }
    assert_eq!(answers.len(), 3, "each master has some responses");
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
    // The address names only this node. So the cache knows the other nodes only from this node, which crashes later.
    let cache = RedisCache::new(at(&format!("redis-cluster://127.0.0.1:{master}"))).unwrap();
    works(&cache).await;
    let key = key("totals", &["2025-10"]);
    let answer = cache.lookup(&key).await.unwrap();
    assert!(matches!(answer, Lookup::Hit(_)), "{answer:?}");
    cluster.crash(master).await;
    fails(&cache).await;
    until_it_answers(&cache).await;
    // The new master may have lost an invalidation, so a response that was cached before must not be found.
    let found =
        eventually(DEADLINE, "a lookup", async || cache.lookup(&key).await.map_err(|error| error.to_string())).await;
    assert!(matches!(found, Lookup::Miss(_)), "{found:?}");
    works(&cache).await;
    assert_ne!(cluster.master_of(VERSIONS).await.unwrap(), master);
    // The old master starts again as a replica.
    cluster.start_again(master).await;
    works(&cache).await;
}
