//! The test suite for the repair of totals.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::{EventTemplate, event};
use crate::aggregate::Contribution;
use crate::batch::Batch;
use crate::event::{Event, IdentifiedEvent};
use crate::granularity::Granularity;
use crate::ports::{AggregateStore, EventStore, TotalsQuery, TotalsRepair};
use crate::time::Day;

/// The time limit of the repairs in one test.
const DEADLINE: Duration = Duration::from_secs(60);

/// Two stores, and the repair for them.
#[derive(Clone, Debug)]
pub struct RepairedStores {
    /// The store of the events.
    pub events: Arc<dyn EventStore>,
    /// The store of the totals to repair.
    pub totals: Arc<dyn AggregateStore>,
    /// Corrects the totals from the stored events.
    pub repair: Arc<dyn TotalsRepair>,
}

/// Tests every behaviour that [`TotalsRepair`] promises, and that both stores mark the days of conflicts for it. `fresh`
/// makes two empty stores and their repair.
pub async fn totals_repair(fresh: impl AsyncFn() -> RepairedStores) {
    // Two copies of one identity, on two different days.
    let copy = |started_at, bytes_up| event(EventTemplate { started_at, bytes_up, ..EventTemplate::default() });
    let (one, two) = (copy("2025-10-20T12:00:00Z", 1), copy("2025-11-02T12:00:00Z", 2));
    for (name, stored, counted) in [
        ("only the event store sees the conflict", vec![&one, &two], vec![&two]),
        ("only the aggregate store sees the conflict", vec![&one], vec![&two, &one]),
        ("both stores see the conflict in one batch", vec![&one, &two], vec![&two, &one]),
        ("both stores keep the same copy", vec![&one, &two], vec![&one, &two]),
    ] {
        let RepairedStores { events, totals, repair } = fresh().await;
        let together = name.contains("one batch");
        for batch in batches(&stored, together) {
            events.store(&Batch::new(batch.into_iter().map(IdentifiedEvent::from).collect())).await.expect("stored");
        }
        for batch in batches(&counted, together) {
            totals.add(&Batch::new(batch.iter().map(Contribution::of).collect())).await.expect("added");
        }
        let before = counted_days(&*totals).await;
        let repaired = repair_all(&*repair, name).await;
        let after = counted_days(&*totals).await;
        assert_eq!(after, [(one.day(), 1)], "{name}: the totals differ from the stored events");
        let reported = before == after || [one.day(), two.day()].iter().all(|day| repaired.contains(day));
        assert!(reported, "{name}: the totals of both days changed, but the repair returned only {repaired:?}");
    }
    a_dropped_repair_is_finished_by_the_next_repair(fresh().await, &one, &two).await;
    nothing_is_repaired_without_a_conflict(fresh().await, &one).await;
}

async fn a_dropped_repair_is_finished_by_the_next_repair(stores: RepairedStores, one: &Event, two: &Event) {
    let RepairedStores { events, totals, repair } = stores;
    for event in [one, two] {
        events.store(&Batch::new(vec![IdentifiedEvent::from(event.clone())])).await.expect("stored");
    }
    totals.add(&Batch::new(vec![Contribution::of(two)])).await.expect("added");
    // A poll begins the repair, and usually does not end it.
    let _ = repair.repair().now_or_never();
    repair_all(&*repair, "a repair was dropped").await;
    assert_eq!(
        counted_days(&*totals).await,
        [(one.day(), 1)],
        "after a dropped repair, the totals differ from the events"
    );
}

/// Calls the repair until it returns no day, and returns all days of the calls.
async fn repair_all(repair: &dyn TotalsRepair, name: &str) -> BTreeSet<Day> {
    let mut repaired = BTreeSet::new();
    let repairs = async {
        loop {
            let days = repair.repair().await.expect("repaired");
            if days.is_empty() {
                return;
            }
            repaired.extend(days);
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, repairs).await.is_ok();
    assert!(in_time, "{name}: the repairs do not end: {repaired:?}");
    repaired
}

fn batches(events: &[&Event], together: bool) -> Vec<Vec<Event>> {
    let events: Vec<Event> = events.iter().copied().cloned().collect();
    if together { vec![events] } else { events.into_iter().map(|event| vec![event]).collect() }
}

async fn counted_days(totals: &dyn AggregateStore) -> Vec<(Day, u64)> {
    let (from, to) = ("2025-01-01".parse().expect("a day"), "2025-12-31".parse().expect("a day"));
    let query = TotalsQuery { granularity: Granularity::Day, from, to, event_type: None };
    let rows = totals.totals(&query).await.expect("totals");
    rows.into_iter().map(|row| (row.date, row.totals.count_events)).collect()
}

async fn nothing_is_repaired_without_a_conflict(stores: RepairedStores, event: &Event) {
    let RepairedStores { events, totals, repair } = stores;
    for _ in 0..2 {
        events.store(&Batch::new(vec![IdentifiedEvent::from(event.clone())])).await.expect("stored");
        totals.add(&Batch::new(vec![Contribution::of(event)])).await.expect("added");
    }
    assert_eq!(repair.repair().await.expect("repaired"), [], "a duplicate must not make a day dirty");
    assert_eq!(counted_days(&*totals).await, [(event.day(), 1)]);
}
