//! Audit and rebuild with the offsets of consumer groups and with a cache, called as in an application.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use netagg_core::memory::MemoryCache;
use netagg_core::ports::{Cache, CacheKey, CacheTicket, GroupOffsets, Lookup, PartitionLag};
use netagg_core::{ConsumerGroups, Day, Error};
use netagg_pg::{AuditOptions, AuditReport, AuditVerdict, Rebuild, RebuildOptions, RebuildReport, Skipped, Undecided};
use tokio_util::sync::CancellationToken;

use super::Fresh;
use super::log::{Log, differences, of_day};

const DAY: &str = "2025-10-20";

fn day() -> Day {
    DAY.parse().unwrap()
}

/// A broker with a topic of one partition. The test sets the end offset and the committed offsets of both groups.
#[derive(Debug)]
struct Broker {
    high: i64,
    ingestor: i64,
    aggregator: i64,
}

#[async_trait]
impl GroupOffsets for Broker {
    async fn lag(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
        assert_eq!(topic, "events.telecom");
        let committed = if group == "ingestors" { self.ingestor } else { self.aggregator };
        let lag = (self.high - committed).max(0);
        Ok(Some(vec![PartitionLag { number: 0, committed: Some(committed), high: self.high, lag }]))
    }

    async fn lag_in_offsets(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
        self.lag(group, topic).await
    }

    async fn members(&self, _: &str) -> Result<usize, Error> {
        Ok(1)
    }
}

/// A broker that is unavailable.
#[derive(Debug)]
struct Unavailable;

#[async_trait]
impl GroupOffsets for Unavailable {
    async fn lag(&self, _: &str, _: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
        Err(Error::unavailable("kafka", "the broker is down"))
    }

    async fn lag_in_offsets(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
        self.lag(group, topic).await
    }

    async fn members(&self, _: &str) -> Result<usize, Error> {
        Err(Error::unavailable("kafka", "the broker is down"))
    }
}

fn groups(offsets: impl GroupOffsets + 'static) -> ConsumerGroups {
    ConsumerGroups {
        offsets: Arc::new(offsets),
        topic: "events.telecom".to_owned(),
        ingestor: "ingestors".to_owned(),
        aggregator: Some("aggregators".to_owned()),
    }
}

async fn audit(fresh: &Fresh, offsets: impl GroupOffsets + 'static) -> AuditReport {
    let options = AuditOptions { patience: Duration::ZERO, ..AuditOptions::default() };
    fresh.postgres.audit().with_consumer_groups(groups(offsets)).run(&options, &|_| {}).await.unwrap()
}

#[tokio::test]
async fn an_audit_compares_processed_offsets_with_committed_offsets() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, (0..20).map(|id| of_day(id, DAY)));
    log.store(0..10).await;
    log.count(0..10).await;

    let report = audit(&fresh, Broker { high: 20, ingestor: 10, aggregator: 8 }).await;
    assert!(report.is_clean(), "{report:?}");
    let lags: Vec<_> = report.offsets.iter().map(|offsets| offsets.group.as_ref().unwrap().lag).collect();
    assert_eq!((lags, report.broker_problem), (vec![10, 12], None));

    let report = audit(&fresh, Broker { high: 20, ingestor: 13, aggregator: 10 }).await;
    assert_eq!(report.verdict(), AuditVerdict::Different);
    assert_eq!(report.offsets[0].lost(), vec![10..13; 1]);
    assert_eq!(report.offsets[1].lost(), []);

    let report = audit(&fresh, Unavailable).await;
    assert!(report.is_clean(), "without the broker, only the database is checked");
    assert!(report.broker_problem.unwrap().contains("the broker is down"));

    // The topic was recreated, so the processed offsets do not show whether the ingestor will still store these events.
    log.store(10..10).await;
    log.count(10..14).await;
    let report = audit(&fresh, Broker { high: 5, ingestor: 5, aggregator: 5 }).await;
    assert_eq!(
        (report.verdict(), &*report.undecided),
        (AuditVerdict::Undecided, &[Undecided { day: day(), events: 4 }][..])
    );
}

/// A cache that records invalidations, or rejects them.
#[derive(Debug)]
struct Invalidations {
    recorded: Mutex<Vec<String>>,
    is_unavailable: bool,
    cache: MemoryCache,
}

#[async_trait]
impl Cache for Invalidations {
    async fn lookup(&self, key: &CacheKey) -> Result<Lookup, Error> {
        self.cache.lookup(key).await
    }

    async fn fill(&self, ticket: CacheTicket, answer: bytes::Bytes, ttl: Duration) -> Result<(), Error> {
        self.cache.fill(ticket, answer, ttl).await
    }

    async fn invalidate(&self, months: &[netagg_core::Month]) -> Result<(), Error> {
        if self.is_unavailable {
            return Err(Error::unavailable("redis", "the server is down"));
        }
        self.recorded.lock().unwrap().extend(months.iter().map(ToString::to_string));
        Ok(())
    }

    async fn invalidate_all(&self) -> Result<(), Error> {
        self.cache.invalidate_all().await
    }
}

fn cache(is_unavailable: bool) -> Arc<Invalidations> {
    Arc::new(Invalidations { recorded: Mutex::default(), is_unavailable, cache: MemoryCache::default() })
}

/// A rebuild that does not wait.
fn options() -> RebuildOptions {
    let mut options = RebuildOptions::new(day(), day());
    options.patience = Duration::ZERO;
    options
}

async fn run(rebuild: &Rebuild, is_dry_run: bool) -> RebuildReport {
    let mut options = options();
    options.is_dry_run = is_dry_run;
    rebuild.run(&options, &|_| {}, &CancellationToken::new()).await.unwrap()
}

#[tokio::test]
async fn a_rebuild_removes_unstored_events_when_the_ingestor_has_read_the_topic_and_invalidates_the_cache() {
    let fresh = Fresh::migrated().await;
    let log = Log::new(&fresh, (0..40).map(|id| of_day(id, DAY)));
    log.store(0..40).await;
    log.count(0..40).await;
    fresh.execute("DELETE FROM events_raw WHERE type = 'DATA'").await;
    fresh
        .execute("DELETE FROM event_identity WHERE key NOT IN (SELECT event_key(source_id, event_id) FROM events_raw)")
        .await;
    let (available, unavailable) = (cache(false), cache(true));
    let rebuild = fresh.postgres.rebuild().with_cache(available.clone());
    let read_all = || groups(Broker { high: 40, ingestor: 40, aggregator: 40 });
    for unknown in [
        rebuild.clone(),
        rebuild.clone().with_consumer_groups(groups(Unavailable)),
        rebuild.clone().with_consumer_groups(groups(Broker { high: 40, ingestor: 39, aggregator: 40 })),
    ] {
        let report = run(&unknown, false).await;
        assert_eq!(report.skipped, [(day(), Skipped::IngestorBehind { events: 8 })].into());
        assert!(!report.is_complete() && report.changes.is_empty() && report.unreached() == 0, "{report:?}");
    }
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM agg_dirty_day").await, 1, "the day stays marked");

    let dry = run(&rebuild.clone().with_consumer_groups(read_all()), true).await;
    assert!(dry.is_complete() && !dry.changes.is_empty(), "{dry:?}");
    assert_eq!(*available.recorded.lock().unwrap(), [] as [String; 0], "a dry run changes nothing");

    let seen = Mutex::new(Vec::new());
    let on_progress = |progress: netagg_pg::RebuildProgress| {
        seen.lock().unwrap().push((progress.month.to_string(), progress.done, progress.total));
    };
    let rebuild = rebuild.with_consumer_groups(read_all());
    let options = options();
    let report = rebuild.run(&options, &on_progress, &CancellationToken::new()).await.unwrap();
    assert_eq!((report.days, report.rebuilt, &report.changes), (1, 1, &dry.changes));
    assert_eq!(*seen.lock().unwrap(), [("2025-10".to_owned(), 0, 1), ("2025-10".to_owned(), 1, 1)]);
    assert_eq!(*available.recorded.lock().unwrap(), ["2025-10"]);
    assert!(report.stale_months.is_empty(), "{report:?}");
    assert_eq!(differences(&fresh).await, Vec::<String>::new());

    fresh.execute("UPDATE agg_day SET count_events = count_events + 1").await;
    let report = run(&fresh.postgres.rebuild().with_cache(unavailable), false).await;
    assert_eq!((report.is_complete(), report.stale_months), (true, [day().month()].into()));

    let stopped = CancellationToken::new();
    stopped.cancel();
    let report = rebuild.run(&options, &|_| {}, &stopped).await.unwrap();
    assert_eq!((report.rebuilt, report.unreached()), (0, 1));

    fresh.execute("INSERT INTO settings (name, value) VALUES ('dropped_through', '2025-10')").await;
    let error = rebuild.run(&options, &|_| {}, &CancellationToken::new()).await.unwrap_err();
    assert!(matches!(error, Error::MonthsDropped { .. }), "{error}");
}
