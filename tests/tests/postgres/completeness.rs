//! The instant up to which a store is complete. It is recorded only if the progress of the service agrees.

use netagg_core::ports::{AggregateStore, CompletenessStore, EventStore, TotalsReader};
use netagg_core::{PartitionId, Position, Span, Timestamp};
use netagg_pg::{PgAggregateStore, PgEventStore};

use super::{Fresh, contributions_of};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn partition(number: i32) -> PartitionId {
    PartitionId::new("events.telecom", number)
}

fn span(number: i32, from: i64, to: i64) -> Span {
    Span { partition: partition(number), from, to, records: 0, last_timestamp: None }
}

fn committed<const N: usize>(offsets: [(i32, i64); N]) -> Vec<Position> {
    offsets.map(|(number, next_offset)| Position { partition: partition(number), next_offset }).into()
}

#[tokio::test]
async fn an_instant_is_recorded_only_if_the_progress_agrees() {
    let fresh = Fresh::migrated().await;
    let totals = PgAggregateStore::new(fresh.postgres.clone());
    let events = PgEventStore::new(fresh.postgres.clone());
    assert_eq!(totals.complete_through().await.unwrap(), None, "nothing is known yet");
    totals.add(&contributions_of([], vec![span(0, 5, 10), span(1, 0, 3), span(1, 4, 9)])).await.unwrap();

    let note = async |through: &str, offsets: &[Position]| {
        fresh.postgres.note_complete(PgAggregateStore::SERVICE, "events.telecom", at(through), offsets).await.unwrap()
    };
    for refused in [
        committed([(0, 11)]),         // The group has committed more than the service has processed.
        committed([(0, 10), (1, 9)]), // The progress has a gap: offset 3 of partition 1.
        committed([(0, 10), (2, 1)]), // The service has processed nothing of partition 2.
    ] {
        assert!(!note("2025-10-20T12:00:00Z", &refused).await, "{refused:?}");
        assert_eq!(totals.complete_through().await.unwrap(), None);
    }
    for (through, offsets, expected) in [
        ("2025-10-20T12:00:00Z", committed([(0, 10), (1, 3), (2, 0)]), "2025-10-20T12:00:00Z"),
        ("2025-10-20T12:00:05Z", committed([(0, 4), (1, 2)]), "2025-10-20T12:00:05Z"),
        // Another member has looked at the broker earlier.
        ("2025-10-20T12:00:01Z", committed([(0, 10)]), "2025-10-20T12:00:05Z"),
    ] {
        assert!(note(through, &offsets).await, "{offsets:?}");
        assert_eq!(totals.complete_through().await.unwrap(), Some(at(expected)));
    }
    assert_eq!(events.complete_through().await.unwrap(), None, "each service has its own instant");

    // If a service gets another topic, its instant starts again.
    let moved = fresh.postgres.note_complete(PgAggregateStore::SERVICE, "other", at("2025-10-20T12:00:02Z"), &[]).await;
    assert!(moved.unwrap());
    assert_eq!(totals.complete_through().await.unwrap(), Some(at("2025-10-20T12:00:02Z")));
}
