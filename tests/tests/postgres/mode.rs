//! The modes: a database has a single mode, and a switch to the other mode keeps all totals exact.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use netagg_core::ports::{
    AggregateStore, CompletenessStore, EventStore, GroupAdmin, GroupOffsets, PartitionLag, TotalsReader, TotalsRepair,
};
use netagg_core::{
    BatchOutcome, ConsumerGroups, Error, Event, EventLimits, Month, PartitionId, ProcessingMode, Span, Timestamp,
};
use netagg_pg::{
    AuditOptions, AuditVerdict, ModeError, PgAggregateStore, PgCombinedStore, PgEventStore, PgTotalsRepair, Postgres,
    RebuildOptions, RecordedMode, SwitchError, SwitchReport,
};
use tokio_util::sync::CancellationToken;

use super::{Fresh, at, contributions_of, events, events_of};

const TOPIC: &str = "events.telecom";

/// A broker with a topic of one partition. By default the groups have no members and no lag.
#[derive(Debug, Default)]
struct Broker {
    members: usize,
    lag: i64,
    /// The calls that changed a group.
    changes: Mutex<Vec<String>>,
    /// Whether changes fail.
    is_unavailable: bool,
    /// A database that another process switches to the combined mode when this broker is asked for members.
    concurrently_switched: Mutex<Option<Postgres>>,
}

impl Broker {
    fn change(&self, change: String) -> Result<(), Error> {
        if self.is_unavailable {
            return Err(Error::unavailable("kafka", "the broker is down"));
        }
        self.changes.lock().unwrap().push(change);
        Ok(())
    }
}

#[async_trait]
impl GroupOffsets for Broker {
    async fn lag(&self, _: &str, _: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
        Ok(Some(vec![PartitionLag { number: 0, committed: Some(10), high: 10 + self.lag, lag: self.lag }]))
    }

    async fn lag_in_offsets(&self, group: &str, topic: &str) -> Result<Option<Vec<PartitionLag>>, Error> {
        self.lag(group, topic).await
    }

    async fn members(&self, _: &str) -> Result<usize, Error> {
        let database = self.concurrently_switched.lock().unwrap().take();
        if let Some(postgres) = database {
            switch_with(&postgres, &Arc::default(), ProcessingMode::Combined).await.unwrap().unwrap();
        }
        Ok(self.members)
    }
}

#[async_trait]
impl GroupAdmin for Broker {
    async fn commit(&self, group: &str, topic: &str, offsets: &[(i32, i64)]) -> Result<(), Error> {
        self.change(format!("{group} of {topic}: {offsets:?}"))
    }

    async fn delete(&self, group: &str) -> Result<(), Error> {
        self.change(format!("{group} deleted"))
    }
}

async fn agree(fresh: &Fresh, mode: ProcessingMode) -> Result<(), ModeError> {
    fresh.postgres.agree_on_mode(mode, &CancellationToken::new()).await.map(Option::unwrap)
}

async fn switch(fresh: &Fresh, broker: &Arc<Broker>, to: ProcessingMode) -> Result<Option<SwitchReport>, SwitchError> {
    switch_with(&fresh.postgres, broker, to).await
}

async fn switch_with(
    postgres: &Postgres,
    broker: &Arc<Broker>,
    to: ProcessingMode,
) -> Result<Option<SwitchReport>, SwitchError> {
    let groups = ConsumerGroups {
        offsets: broker.clone(),
        topic: TOPIC.to_owned(),
        ingestor: "ingestors".to_owned(),
        aggregator: Some("aggregators".to_owned()),
    };
    postgres.mode_switch(groups, broker.clone()).run(to).await
}

async fn assert_exact(fresh: &Fresh) {
    let options = AuditOptions { patience: Duration::ZERO, ..AuditOptions::default() };
    let report = fresh.postgres.audit().run(&options, &|_| {}).await.unwrap();
    assert_eq!(report.verdict(), AuditVerdict::Equal, "{report:?}");
    assert_eq!(RecordedMode::Set(report.mode), fresh.postgres.recorded_mode().await.unwrap());
}

/// Ten events at the offsets 0 to 9. The last event is a copy of the first.
fn ten(first: u128) -> (Vec<Event>, Vec<Span>) {
    let span = Span { partition: PartitionId::new(TOPIC, 0), from: 0, to: 10, records: 10, last_timestamp: None };
    let event = |id: u128| at(first + id % 9, &format!("2025-10-{:02}T12:00:00Z", 10 + id % 9));
    ((0..10).map(event).collect(), vec![span])
}

/// A database in the separate mode, whose services have stored and counted the same events.
async fn separate() -> Fresh {
    let fresh = Fresh::migrated().await;
    agree(&fresh, ProcessingMode::Separate).await.unwrap();
    let (all, spans) = ten(0);
    PgEventStore::new(fresh.postgres.clone()).store(&events_of(all.clone(), spans.clone())).await.unwrap();
    PgAggregateStore::new(fresh.postgres.clone()).add(&contributions_of(all, spans)).await.unwrap();
    fresh
}

async fn store_combined(fresh: &Fresh, all: impl IntoIterator<Item = Event>) -> Result<BatchOutcome, Error> {
    PgCombinedStore::new(fresh.postgres.clone()).store(&events(all)).await
}

fn assert_rejected<T: std::fmt::Debug>(outcome: Result<T, Error>, text: &str) {
    let error = outcome.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }) && !error.is_retryable(), "{error:?}");
    assert!(error.to_string().contains(text), "{error}");
}

#[tokio::test]
async fn a_new_database_has_the_mode_of_its_first_service() {
    for mode in ProcessingMode::ALL {
        let fresh = Fresh::migrated().await;
        assert_eq!(fresh.postgres.recorded_mode().await.unwrap(), RecordedMode::Unset);
        // Two replicas start at the same time.
        let (first, second) = tokio::join!(agree(&fresh, mode), agree(&fresh, mode));
        first.and(second).unwrap();
        assert_eq!(fresh.postgres.recorded_mode().await.unwrap(), RecordedMode::Set(mode));
        let other = ProcessingMode::ALL.into_iter().find(|other| *other != mode).unwrap();
        let error = agree(&fresh, other).await.unwrap_err();
        let expected = format!("the database is in the {mode} mode, and this service works in the {other} mode");
        assert_eq!(error.to_string(), expected);
        assert_exact(&fresh).await;
    }
}

#[tokio::test]
async fn a_database_written_by_services_without_a_mode_is_in_the_separate_mode() {
    let fresh = Fresh::migrated().await;
    PgEventStore::new(fresh.postgres.clone()).store(&events([at(1, "2025-10-20T12:00:00Z")])).await.unwrap();
    assert!(matches!(agree(&fresh, ProcessingMode::Combined).await, Err(ModeError::Differs { .. })));
    agree(&fresh, ProcessingMode::Separate).await.unwrap();
}

#[tokio::test]
async fn a_service_of_the_other_mode_writes_nothing_even_if_it_was_started_before_the_switch() {
    let fresh = separate().await;
    assert_rejected(
        store_combined(&fresh, [at(50, "2025-10-20T12:00:00Z")]).await,
        "the database is in the separate mode",
    );
    // These services have written before the switch. They continue after it, like members whose session the broker has ended.
    let (store, totals) = (PgEventStore::new(fresh.postgres.clone()), PgAggregateStore::new(fresh.postgres.clone()));
    let (all, spans) = ten(0);
    store.store(&events_of(all.clone(), spans.clone())).await.unwrap();
    switch(&fresh, &Arc::default(), ProcessingMode::Combined).await.unwrap().unwrap();
    assert_rejected(store.store(&events_of(all.clone(), spans.clone())).await, "the database is in the combined mode");
    assert_rejected(totals.add(&contributions_of(all, spans)).await, "the database is in the combined mode");
    assert_exact(&fresh).await;
}

#[tokio::test]
async fn both_switches_keep_all_totals_exact() {
    let fresh = separate().await;
    let broker = Arc::new(Broker::default());
    let through: Timestamp = "2025-10-20T12:00:00Z".parse().unwrap();
    for service in [PgEventStore::SERVICE, PgAggregateStore::SERVICE] {
        assert!(fresh.postgres.note_complete(service, TOPIC, through, &[]).await.unwrap());
    }
    assert_exact(&fresh).await;

    let report = switch(&fresh, &broker, ProcessingMode::Combined).await.unwrap().unwrap();
    assert_eq!((report.before, report.counted_identities), (RecordedMode::Set(ProcessingMode::Separate), 0));
    assert_eq!(*broker.changes.lock().unwrap(), ["aggregators deleted"]);
    assert_exact(&fresh).await;
    assert_eq!(switch(&fresh, &broker, ProcessingMode::Combined).await.unwrap(), None, "the switch is already done");
    // In the combined mode the ledger of events is used for counting, so known events are not counted again.
    let outcome = store_combined(&fresh, ten(0).0.into_iter().chain(ten(100).0)).await.unwrap();
    assert_eq!((outcome.new, outcome.duplicates), (9, 11));
    assert_exact(&fresh).await;
    // In the combined mode the ingestor counts, so its instant applies to the totals.
    let totals = PgAggregateStore::new(fresh.postgres.clone());
    assert_eq!(totals.complete_through().await.unwrap(), Some(through));
    let later: Timestamp = "2025-10-20T12:00:10Z".parse().unwrap();
    assert!(fresh.postgres.note_complete(PgEventStore::SERVICE, TOPIC, later, &[]).await.unwrap());
    assert_eq!(totals.complete_through().await.unwrap(), Some(later));

    let report = switch(&fresh, &broker, ProcessingMode::Separate).await.unwrap().unwrap();
    assert_eq!((report.before, report.counted_identities), (RecordedMode::Set(ProcessingMode::Combined), 18));
    assert_eq!(broker.changes.lock().unwrap()[1], "aggregators of events.telecom: [(0, 10)]");
    assert_exact(&fresh).await;
    assert_eq!(totals.complete_through().await.unwrap(), Some(later));
    // The ledger of the aggregator has all events that the combined ingestor has counted.
    let outcome = totals.add(&contributions_of(ten(100).0, Vec::new())).await.unwrap();
    assert_eq!((outcome.new, outcome.duplicates), (0, 10));
    let audited = fresh.postgres.audit().offsets().await.unwrap();
    let services: Vec<_> =
        audited.iter().map(|offsets| (&*offsets.service, offsets.done, offsets.unaccounted())).collect();
    assert_eq!(services, [("ingestor", 10, 0), ("aggregator", 10, 0)]);
}

#[tokio::test]
async fn a_switch_is_rejected_while_services_run_or_lag_or_days_are_dirty() {
    let fresh = separate().await;
    for (broker, expected) in [
        (Broker { members: 2, ..Broker::default() }, "ingestors has 2 members"),
        (Broker { lag: 3, ..Broker::default() }, "ingestors has 3 unprocessed messages"),
    ] {
        let error = switch(&fresh, &Arc::new(broker), ProcessingMode::Combined).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    // A conflict makes both of its days dirty.
    PgEventStore::new(fresh.postgres.clone()).store(&events([at(0, "2025-11-01T12:00:00Z")])).await.unwrap();
    let error = switch(&fresh, &Arc::default(), ProcessingMode::Combined).await.unwrap_err();
    assert!(matches!(error, SwitchError::DirtyDays { days: 2, .. }), "{error}");
    let expected = "the totals of 2 days from 2025-10-10 to 2025-11-01 must be recomputed first";
    assert_eq!(error.to_string(), expected);
    assert_eq!(fresh.postgres.recorded_mode().await.unwrap(), RecordedMode::Set(ProcessingMode::Separate));
    // The rejected switch has changed nothing, so a service can still repair these days.
    PgTotalsRepair::new(fresh.postgres.clone()).repair().await.unwrap();
    switch(&fresh, &Arc::default(), ProcessingMode::Combined).await.unwrap().unwrap();
    assert_exact(&fresh).await;
}

#[tokio::test]
async fn after_an_interrupted_switch_no_service_can_write_until_the_switch_is_finished() {
    let fresh = separate().await;
    for (from, to) in
        [(ProcessingMode::Separate, ProcessingMode::Combined), (ProcessingMode::Combined, ProcessingMode::Separate)]
    {
        let unavailable = Arc::new(Broker { is_unavailable: true, ..Broker::default() });
        let error = switch(&fresh, &unavailable, to).await.unwrap_err();
        assert!(matches!(error, SwitchError::Store(Error::Unavailable { .. })), "{error}");
        assert_eq!(fresh.postgres.recorded_mode().await.unwrap(), RecordedMode::SwitchingTo(to));
        let expected = format!("the switch of the database to the {to} mode is not finished");
        for mode in ProcessingMode::ALL {
            assert!(agree(&fresh, mode).await.unwrap_err().to_string().contains(&expected));
        }
        let (all, spans) = ten(200);
        let postgres = || fresh.postgres.clone();
        assert_rejected(PgEventStore::new(postgres()).store(&events(all.clone())).await, &expected);
        assert_rejected(PgAggregateStore::new(postgres()).add(&contributions_of(all.clone(), spans)).await, &expected);
        assert_rejected(store_combined(&fresh, all).await, &expected);
        // A switch back to the old mode is rejected, too.
        let error = switch(&fresh, &Arc::default(), from).await.unwrap_err();
        assert!(matches!(error, SwitchError::Unfinished { to: other } if other == to), "{error}");
        let report = switch(&fresh, &Arc::default(), to).await.unwrap().unwrap();
        assert_eq!(report.before, RecordedMode::SwitchingTo(to));
        agree(&fresh, to).await.unwrap();
        assert_exact(&fresh).await;
    }
}

#[tokio::test]
async fn two_concurrent_switches_have_the_result_of_one_switch() {
    let fresh = separate().await;
    let concurrently_switched = Mutex::new(Some(fresh.postgres.clone()));
    let broker = Arc::new(Broker { concurrently_switched, ..Broker::default() });
    let error = switch(&fresh, &broker, ProcessingMode::Combined).await.unwrap_err();
    assert!(matches!(&error, SwitchError::Store(error) if error.is_retryable()), "{error}");
    assert_eq!(fresh.postgres.recorded_mode().await.unwrap(), RecordedMode::Set(ProcessingMode::Combined));
    assert_eq!(switch(&fresh, &broker, ProcessingMode::Combined).await.unwrap(), None);
    assert_exact(&fresh).await;
}

#[tokio::test]
async fn retention_and_rebuild_work_with_the_single_ledger_of_the_combined_mode() {
    let fresh = Fresh::combined().await;
    store_combined(&fresh, (5..9).map(|month| at(month, &format!("2025-0{month}-15T00:00:00Z")))).await.unwrap();
    // The totals of a day are wrong, and an identity of another day is lost.
    fresh.execute("UPDATE agg_day SET count_events = 7 WHERE day = '2025-08-15'").await;
    fresh.execute("DELETE FROM event_identity WHERE day = '2025-07-15'").await;
    let (from, to) = ("2025-07-01".parse().unwrap(), "2025-08-31".parse().unwrap());
    let mut options = RebuildOptions::new(from, to);
    options.patience = Duration::ZERO;
    let rebuild = fresh.postgres.rebuild();
    let report = rebuild.run(&options, &|_| {}, &CancellationToken::new()).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    let counts = "SELECT array_agg(count_events ORDER BY day) FROM agg_day";
    assert_eq!(fresh.value::<Vec<i64>>(counts).await, [1, 1, 1, 1]);
    assert_exact(&fresh).await;

    let month = |text: &str| text.parse::<Month>().unwrap();
    let limits = EventLimits { max_age: Duration::from_secs(60 * 86_400), ..EventLimits::default() };
    let now = "2025-10-20T12:00:00Z".parse().unwrap();
    let dropped = fresh.postgres.retention().drop_before(month("2025-07"), limits, now).await.unwrap();
    assert_eq!((dropped.months.len(), dropped.identities), (2, 2));
    assert_eq!(fresh.value::<i64>("SELECT count(*) FROM event_identity").await, 2);
    assert_exact(&fresh).await;
    let error = store_combined(&fresh, [at(70, "2025-06-15T00:00:00Z")]).await.unwrap_err();
    assert!(matches!(error, Error::MonthsDropped { .. }), "{error}");
}

#[tokio::test]
async fn events_that_were_set_aside_are_counted_once() {
    let fresh = Fresh::combined().await;
    fresh.execute("CREATE TABLE events_raw_2025_10 (id int)").await;
    let outcome = store_combined(&fresh, [at(1, "2025-10-15T00:00:00Z"), at(2, "2025-11-15T00:00:00Z")]).await.unwrap();
    assert_eq!(outcome.new, 2);
    let counted = "SELECT sum(count_events)::bigint FROM agg_day";
    assert_eq!(fresh.value::<i64>(counted).await, 2);
    fresh.execute("DROP TABLE events_raw_2025_10").await;
    let stored = fresh.postgres.partitions().store_set_aside().await.unwrap();
    assert_eq!(stored.stored, 1);
    PgTotalsRepair::new(fresh.postgres.clone()).repair().await.unwrap();
    assert_eq!(fresh.value::<i64>(counted).await, 2);
    assert_exact(&fresh).await;
}

#[tokio::test]
async fn migrations_are_reverted_only_in_the_separate_mode() {
    let fresh = Fresh::combined().await;
    store_combined(&fresh, ten(0).0).await.unwrap();
    let error = fresh.postgres.migrations().down_to(8).await.unwrap_err();
    assert!(error.to_string().contains("netagg mode set separate"), "{error}");
    assert_eq!(fresh.postgres.recorded_mode().await.unwrap(), RecordedMode::Set(ProcessingMode::Combined));
    switch(&fresh, &Arc::default(), ProcessingMode::Separate).await.unwrap().unwrap();
    fresh.postgres.migrations().down_to(8).await.unwrap();
    // After the migrations are applied again, the database is in the separate mode.
    fresh.postgres.migrations().up().await.unwrap();
    store_combined(&fresh, ten(0).0).await.unwrap_err();
}
