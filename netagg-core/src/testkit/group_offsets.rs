//! The test suites for the ports that read and change the offsets of a group.

use std::sync::Arc;
use std::time::Duration;

use crate::ports::{EventPublisher, EventSource, GroupAdmin, GroupOffsets, PartitionLag, SourceEvent};
use crate::record::{OutgoingRecord, PartitionId, Position};

/// The time limit of one test step. A broker may show a commit late.
const DEADLINE: Duration = Duration::from_secs(180);

/// Tests every behaviour that [`GroupOffsets`] promises for a log in which each offset holds a record. `topic` is an empty
/// topic with one partition. `publisher` writes to it. `source` reads it, as the first member of the group `group`.
pub async fn group_offsets(
    offsets: &dyn GroupOffsets,
    (group, topic): (&str, &str),
    publisher: Arc<dyn EventPublisher>,
    mut source: Box<dyn EventSource>,
) {
    assert_eq!(offsets.lag(group, "no such topic").await.expect("no error"), None, "the topic does not exist");
    expect(offsets, group, topic, PartitionLag { number: 0, committed: None, high: 0, lag: 0 }).await;
    let records = (0..10).map(|number: u32| OutgoingRecord::new(number.to_string()));
    publisher.publish(records.collect()).await.expect("published");
    expect(offsets, group, topic, PartitionLag { number: 0, committed: None, high: 10, lag: 10 }).await;

    let mut read = 0;
    let reading = async {
        while read < 10 {
            if let SourceEvent::Records(records) = source.next().await.expect("a source without errors") {
                read += records.len();
            }
        }
    };
    tokio::time::timeout(DEADLINE, reading).await.expect("the records arrive");
    for (next_offset, lag) in [(7, 3), (10, 0)] {
        let position = Position { partition: PartitionId::new(topic, 0), next_offset };
        source.commit(&[position]).await.expect("committed");
        expect(offsets, group, topic, PartitionLag { number: 0, committed: Some(next_offset), high: 10, lag }).await;
    }
    source.close().await.expect("closed");
    expect(offsets, group, topic, PartitionLag { number: 0, committed: Some(10), high: 10, lag: 0 }).await;
}

/// Tests every behaviour that [`GroupAdmin`] promises. `offsets` reads the same groups. `topic` is an empty topic with one
/// partition, which the group `group` has never read. `publisher` writes to it.
pub async fn group_admin(
    admin: &dyn GroupAdmin,
    offsets: &dyn GroupOffsets,
    (group, topic): (&str, &str),
    publisher: Arc<dyn EventPublisher>,
) {
    let records = (0..10).map(|number: u32| OutgoingRecord::new(number.to_string()));
    publisher.publish(records.collect()).await.expect("published");
    admin.delete(group).await.expect("deleting a group that does not exist is not an error");
    for (next_offset, lag) in [(7, 3), (4, 6), (10, 0)] {
        admin.commit(group, topic, &[(0, next_offset)]).await.expect("committed");
        expect(offsets, group, topic, PartitionLag { number: 0, committed: Some(next_offset), high: 10, lag }).await;
    }
    admin.delete(group).await.expect("deleted");
    expect(offsets, group, topic, PartitionLag { number: 0, committed: None, high: 10, lag: 10 }).await;
}

/// Waits until both methods return `expected`, because a broker may show a commit late.
async fn expect(offsets: &dyn GroupOffsets, group: &str, topic: &str, expected: PartitionLag) {
    let expected = Some(vec![expected]);
    let mut found = (None, None);
    let polling = async {
        loop {
            let lag = offsets.lag(group, topic).await.expect("the lag");
            found = (lag, offsets.lag_in_offsets(group, topic).await.expect("the lag"));
            if found.0 == expected && found.1 == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, polling).await.is_ok();
    assert!(in_time, "expected {expected:?}, found {found:?}");
}
