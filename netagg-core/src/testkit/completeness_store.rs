//! The test suite for completeness stores.

use crate::aggregate::Contribution;
use crate::batch::Batch;
use crate::ports::{AggregateStore, CompletenessStore};
use crate::record::{PartitionId, Position, Span};
use crate::time::Timestamp;

const TOPIC: &str = "events.completeness";

/// Tests every behaviour that [`CompletenessStore`] promises. `totals` is an empty aggregate store: `store` checks its
/// progress, and it returns the recorded instant. `service` is the name of the service that writes `totals`.
pub async fn completeness_store(store: &dyn CompletenessStore, totals: &dyn AggregateStore, service: &str) {
    let partition = |number| PartitionId::new(TOPIC, number);
    let span = |number, from, to| Span { partition: partition(number), from, to, records: 0, last_timestamp: None };
    let committed = |offsets: &[(i32, i64)]| -> Vec<Position> {
        let position = |&(number, next_offset)| Position { partition: partition(number), next_offset };
        offsets.iter().map(position).collect()
    };
    let at = |text: &str| -> Timestamp { text.parse().expect("a time") };
    let through = async || totals.complete_through().await.expect("an instant");

    assert_eq!(through().await, None, "an empty store has no instant");
    let spans = vec![span(0, 5, 10), span(1, 0, 3), span(1, 4, 9)];
    totals.add(&Batch::<Contribution>::builder(spans).build()).await.expect("added");
    for (reason, offsets) in [
        ("a committed offset is not processed", committed(&[(0, 11)])),
        ("offset 3 is not processed", committed(&[(0, 10), (1, 9)])),
        ("no offset of partition 2 is processed", committed(&[(0, 10), (2, 1)])),
    ] {
        let noted = store.note_complete(service, TOPIC, at("2025-10-20T12:00:00Z"), &offsets).await.expect("no error");
        assert_eq!((noted, through().await), (false, None), "{reason}");
    }
    let processed = committed(&[(0, 10), (1, 3)]);
    let noted = store.note_complete("another", TOPIC, at("2025-10-20T12:00:00Z"), &processed).await.expect("no error");
    assert_eq!((noted, through().await), (false, None), "another service has no progress");
    for (reason, instant, offsets, expected) in [
        ("all offsets are processed", "2025-10-20T12:00:00Z", [(0, 10), (1, 3)], "2025-10-20T12:00:00Z"),
        ("a later instant with smaller offsets", "2025-10-20T12:00:05Z", [(0, 7), (1, 2)], "2025-10-20T12:00:05Z"),
        ("an earlier instant changes nothing", "2025-10-20T12:00:01Z", [(0, 10), (1, 3)], "2025-10-20T12:00:05Z"),
    ] {
        let noted = store.note_complete(service, TOPIC, at(instant), &committed(&offsets)).await.expect("no error");
        assert_eq!((noted, through().await), (true, Some(at(expected))), "{reason}");
    }
}
