//! The test suite for event stores.

use std::sync::Arc;

use super::{EventTemplate, check, event};
use crate::aggregate::Totals;
use crate::batch::{Batch, SpanCounts};
use crate::event::{Event, EventFields, EventType, IdentifiedEvent, Identity, UserId};
use crate::ports::{EventStore, PeriodSums, SumsQuery, TimelineFilter, TimelinePosition, TimelineQuery};
use crate::record::{PartitionId, Span};
use crate::{Conflict, MAX_BYTES, MAX_DURATION_SEC, Timestamp};

/// Tests every behaviour that [`EventStore`] promises. `fresh` makes an empty store.
pub async fn event_store<S: EventStore + ?Sized + 'static>(fresh: impl AsyncFn() -> Arc<S>) {
    an_event_comes_back_as_it_was_stored(&*fresh().await).await;
    the_first_copy_of_an_identity_stays(&*fresh().await).await;
    a_repeated_batch_stores_nothing(&*fresh().await).await;
    a_batch_without_events_is_stored(&*fresh().await).await;
    a_timeline_pages_from_newest_to_oldest_through_ties(&*fresh().await).await;
    a_timeline_ends_with_the_event_that_exceeds_its_bytes(&*fresh().await).await;
    a_timeline_is_filtered_by_user_range_and_type(&*fresh().await).await;
    sums_are_by_period_and_type(&*fresh().await).await;
    concurrent_batches_store_each_event_once(fresh().await).await;
}

fn batch(events: impl IntoIterator<Item = Event>) -> Batch<IdentifiedEvent> {
    Batch::new(events.into_iter().map(IdentifiedEvent::from).collect())
}

fn filter(user: &str) -> TimelineFilter {
    TimelineFilter {
        user_id: UserId::new(user).expect("a user"),
        from: "2020-01-01T00:00:00Z".parse().expect("a time"),
        to: "2030-01-01T00:00:00Z".parse().expect("a time"),
        event_type: None,
    }
}

async fn timeline<S: EventStore + ?Sized>(store: &S, filter: TimelineFilter) -> Vec<Event> {
    store.timeline(&TimelineQuery { filter, after: None, limit: 1_000, max_bytes: u64::MAX }).await.expect("a timeline")
}

async fn an_event_comes_back_as_it_was_stored<S: EventStore + ?Sized>(store: &S) {
    let rich = event(EventTemplate {
        user: "Ünïcødé \u{1F600} 'quoted\" \\ user",
        source: "provider \t\n ж",
        started_at: "2024-02-29T23:59:59.999999Z",
        duration_sec: Some(MAX_DURATION_SEC),
        bytes_up: MAX_BYTES,
        bytes_down: MAX_BYTES,
        meta: Some(r#"{"b":[1.50,-0.0,1e3,12345678901234567890.123456789],"a":{"":null,"é":"\u0001\\\""}}"#),
        ..EventTemplate::default()
    });
    let rich = Event::new(EventFields { ended_at: Some(rich.fields().started_at), ..rich.into_fields() })
        .expect("a valid event");
    let plain = event(EventTemplate { id: 2, user: "plain", duration_sec: None, ..EventTemplate::default() });
    let outcome = store.store(&batch([rich.clone(), plain.clone()])).await.expect("stored");
    assert_eq!((outcome.new, outcome.duplicates), (2, 0));
    assert_eq!(outcome.days, [rich.day(), plain.day()]);
    for stored in [rich, plain] {
        let user = stored.fields().user_id.as_str().to_owned();
        let found = timeline(store, filter(&user)).await;
        check::same_items("the stored event", &found, std::slice::from_ref(&stored));
        assert_eq!(found[0].content_hash(), stored.content_hash(), "the content hash must not change");
    }
}

async fn the_first_copy_of_an_identity_stays<S: EventStore + ?Sized>(store: &S) {
    let first = event(EventTemplate::default());
    let elsewhere = event(EventTemplate {
        user: "user-2",
        started_at: "2025-11-02T00:00:00Z",
        bytes_up: 5,
        ..EventTemplate::default()
    });
    let other_source = event(EventTemplate { source: "provider-2", ..EventTemplate::default() });
    store.store(&batch([first.clone()])).await.expect("stored");
    // The batch repeats the first event, which the store already has. It also has a conflicting copy in another month.
    let again = batch([first.clone(), elsewhere.clone(), first.clone(), other_source.clone()]);
    let outcome = store.store(&again).await.expect("stored");
    assert_eq!(outcome.new, 1, "only the event of the other source is new");
    assert_eq!(outcome.duplicates, 2);
    let conflict = Conflict { kept: Identity::of(&first), dropped: Identity::of(&elsewhere), position: None };
    check::same_items("conflicts within a batch", &outcome.conflicts, std::slice::from_ref(&conflict));
    let outcome = store.store(&batch([elsewhere.clone()])).await.expect("stored");
    assert_eq!((outcome.new, outcome.duplicates), (0, 0));
    check::same_items("conflicts with a stored event", &outcome.conflicts, &[conflict]);
    check::same_items("first copies", &timeline(store, filter("user-1")).await, &[first, other_source]);
    check::same_items("events of the second copy's user", &timeline(store, filter("user-2")).await, &[]);
}

async fn a_repeated_batch_stores_nothing<S: EventStore + ?Sized>(store: &S) {
    let events = (0..100).map(|id| event(EventTemplate { id, ..EventTemplate::default() }));
    let span = Span { partition: PartitionId::new("events", 0), from: 0, to: 100, records: 100, last_timestamp: None };
    let mut batch = Batch::builder(vec![span.clone()]);
    for (offset, event) in events.enumerate() {
        batch.push(&span.partition, offset as i64, IdentifiedEvent::from(event));
    }
    let batch = batch.build();
    let first = store.store(&batch).await.expect("stored");
    assert_eq!((first.new, first.duplicates), (100, 0));
    assert_eq!(first.span_counts, [SpanCounts { accepted: 100, ..SpanCounts::default() }]);
    let second = store.store(&batch).await.expect("stored");
    assert_eq!((second.new, second.duplicates), (0, 100));
    assert_eq!(second.span_counts, [SpanCounts { duplicates: 100, ..SpanCounts::default() }]);
    assert_eq!(second.days, [], "nothing changed");
    assert_eq!(store.count(&filter("user-1")).await.expect("a count"), 100);
}

async fn a_batch_without_events_is_stored<S: EventStore + ?Sized>(store: &S) {
    let spans =
        vec![Span { partition: PartitionId::new("events", 0), from: 5, to: 9, records: 0, last_timestamp: None }];
    let outcome = store.store(&Batch::builder(spans).build()).await.expect("stored");
    assert_eq!((outcome.new, outcome.span_counts), (0, vec![SpanCounts::default()]));
}

async fn a_timeline_pages_from_newest_to_oldest_through_ties<S: EventStore + ?Sized>(store: &S) {
    let times = ["2025-10-20T12:00:00Z", "2025-10-20T12:00:00.000001Z", "2025-09-30T23:59:59.999999Z"];
    let sources = ["B", "a", "b", "á"]; // ascending by bytes, unlike the order of any language
    let mut expected = Vec::new();
    for started_at in [times[1], times[0], times[2]] {
        for source in sources {
            for id in 1..=3 {
                expected.push(event(EventTemplate { id: id + 0xff00, source, started_at, ..EventTemplate::default() }));
            }
        }
    }
    // Three events of one source with the same id would be one identity. So each instant gets its own ids.
    for (at, slot) in expected.iter_mut().enumerate() {
        let fields = slot.clone().into_fields();
        let id = fields.event_id.as_u128() + ((at / (sources.len() * 3)) as u128) * 0x10000;
        *slot = Event::new(EventFields { event_id: uuid::Uuid::from_u128(id), ..fields }).expect("valid");
    }
    let mut shuffled = expected.clone();
    shuffled.reverse();
    shuffled.rotate_left(7);
    store.store(&batch(shuffled)).await.expect("stored");

    for limit in [1, 5, 36, 100] {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let query = TimelineQuery { filter: filter("user-1"), after: after.clone(), limit, max_bytes: u64::MAX };
            let page = store.timeline(&query).await.expect("a page");
            assert!(page.len() <= limit as usize);
            let Some(last) = page.last() else { break };
            let position = TimelinePosition::of(last);
            assert!(after.as_ref() != Some(&position), "a page after {position:?} ends with the same event");
            after = Some(position);
            found.extend(page);
            assert!(found.len() <= expected.len(), "pages of {limit} events repeat events");
        }
        check::same_items(&format!("pages of {limit} events"), &found, &expected);
    }
}

async fn a_timeline_ends_with_the_event_that_exceeds_its_bytes<S: EventStore + ?Sized>(store: &S) {
    let meta = format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000));
    let large = |id| event(EventTemplate { id, meta: Some(&meta), ..EventTemplate::default() });
    let all: Vec<_> = (0..20).map(large).collect();
    store.store(&batch(all.clone())).await.expect("stored");
    let count = async |limit, max_bytes| {
        let query = TimelineQuery { filter: filter("user-1"), after: None, limit, max_bytes };
        let found = store.timeline(&query).await.expect("a timeline");
        assert!(found == all[..found.len()], "the first events of the timeline");
        found.len()
    };
    // Limits between two sums of sizes, because a store may format `meta` differently.
    let half = all[0].size() / 2;
    for (max_bytes, expected) in [(0, 1), (half, 1), (3 * half, 2), (11 * half, 6), (100 * half, 20)] {
        assert_eq!(count(1_000, max_bytes).await, expected, "{max_bytes} bytes");
    }
    assert_eq!(count(3, 11 * half).await, 3, "the limit applies, too");
}

async fn a_timeline_is_filtered_by_user_range_and_type<S: EventStore + ?Sized>(store: &S) {
    let at =
        |id, started_at, event_type| event(EventTemplate { id, started_at, event_type, ..EventTemplate::default() });
    let old = at(1, "2025-10-01T00:00:00Z", EventType::Data);
    let middle = at(2, "2025-10-02T00:00:00Z", EventType::SmsSent);
    let new = at(3, "2025-10-03T00:00:00Z", EventType::Data);
    let foreign = event(EventTemplate { id: 4, user: "user-2", ..EventTemplate::default() });
    store.store(&batch([old.clone(), middle.clone(), new.clone(), foreign])).await.expect("stored");

    let all = filter("user-1");
    let range = TimelineFilter { from: old.fields().started_at, to: new.fields().started_at, ..all.clone() };
    let data = TimelineFilter { event_type: Some(EventType::Data), ..all.clone() };
    let nothing = TimelineFilter { to: all.from, ..all.clone() };
    for (filter, expected) in [
        (all, vec![new.clone(), middle.clone(), old.clone()]),
        (range, vec![middle, old.clone()]), // the range includes its start and excludes its end
        (data, vec![new, old]),
        (nothing, vec![]),
        (filter("user-without-events"), vec![]),
    ] {
        assert_eq!(store.count(&filter).await.expect("a count"), expected.len() as u64, "{filter:?}");
        check::same_items("a filtered timeline", &timeline(store, filter).await, &expected);
    }
}

async fn concurrent_batches_store_each_event_once<S: EventStore + ?Sized + 'static>(store: Arc<S>) {
    // Eight writers store overlapping sets of events in several months.
    let writers: Vec<_> = (0..8_u128)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut new = 0;
                for round in 0..5 {
                    let events = (0..200_u128).filter(|id| (id + writer) % 4 != 0).map(|id| {
                        let month = 1 + (id % 12);
                        let started_at = format!("2025-{month:02}-15T00:00:00Z");
                        event(EventTemplate {
                            id: round * 1_000 + id,
                            started_at: &started_at,
                            ..EventTemplate::default()
                        })
                    });
                    new += store.store(&batch(events)).await.expect("stored").new;
                }
                new
            })
        })
        .collect();
    let mut new = 0;
    for writer in writers {
        new += writer.await.expect("joined");
    }
    assert_eq!(new, 1_000, "each event is new exactly once");
    assert_eq!(store.count(&filter("user-1")).await.expect("a count"), 1_000);
}

async fn sums_are_by_period_and_type<S: EventStore + ?Sized>(store: &S) {
    let at = |id, user, started_at, event_type| {
        let (bytes_up, bytes_down) = (MAX_BYTES, 1);
        let duration_sec = (event_type == EventType::CallOut).then_some(MAX_DURATION_SEC);
        let template = EventTemplate { id, user, started_at, event_type, ..EventTemplate::default() };
        event(EventTemplate { duration_sec, bytes_up, bytes_down, ..template })
    };
    store
        .store(&batch([
            at(1, "user-1", "2025-10-25T21:59:59.999999Z", EventType::Data), // before the first period
            at(2, "user-1", "2025-10-25T22:00:00Z", EventType::Data),
            at(3, "user-1", "2025-10-26T22:59:59.999999Z", EventType::Data), // 25 hours later
            at(4, "user-1", "2025-10-26T00:00:00Z", EventType::CallOut),
            at(5, "user-2", "2025-10-26T00:00:00Z", EventType::CallOut),
            at(6, "user-1", "2025-11-26T23:00:00Z", EventType::SmsSent), // in another month, and in the last period
            at(7, "user-1", "2025-12-01T00:00:00Z", EventType::SmsSent), // after the last period
        ]))
        .await
        .expect("stored");
    let bounds = ["2025-10-25T22:00:00Z", "2025-10-26T23:00:00Z", "2025-10-27T23:00:00Z", "2025-12-01T00:00:00Z"];
    let bounds: Vec<Timestamp> = bounds.iter().map(|bound| bound.parse().expect("a time")).collect();
    let sums = async |user: Option<&str>, event_type| {
        let user_id = user.map(|user| UserId::new(user).expect("a user"));
        store.sums(&SumsQuery { user_id, bounds: bounds.clone(), event_type }).await.expect("sums")
    };
    let sum = |period, event_type, count: u64| {
        let sum_duration = if event_type == EventType::CallOut { count * u64::from(MAX_DURATION_SEC) } else { 0 };
        let (sum_bytes_up, sum_bytes_down) = (u128::from(count) * u128::from(MAX_BYTES), u128::from(count));
        let totals = Totals { count_events: count, sum_duration, sum_bytes_up, sum_bytes_down };
        PeriodSums { period, event_type, totals }
    };
    let (calls, data, texts) =
        (sum(0, EventType::CallOut, 1), sum(0, EventType::Data, 2), sum(2, EventType::SmsSent, 1));
    check::same_items("sums of a user", &sums(Some("user-1"), None).await, &[calls, data, texts]);
    check::same_items("sums of a type", &sums(Some("user-1"), Some(EventType::Data)).await, &[data]);
    check::same_items("sums of another user", &sums(Some("user-2"), None).await, &[calls]);
    check::same_items("sums without events", &sums(Some("user-without-events"), None).await, &[]);
    check::same_items("sums of all users", &sums(None, None).await, &[sum(0, EventType::CallOut, 2), data, texts]);
}
