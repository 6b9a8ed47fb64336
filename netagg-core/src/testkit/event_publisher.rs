//! The test suite for publishers without a source.

use bytes::Bytes;

use crate::ports::EventPublisher;
use crate::record::{Header, OutgoingRecord};

/// Tests every behaviour that [`EventPublisher`] promises, without an [`EventSource`](crate::ports::EventSource).
/// [`event_source`](super::event_source()) tests a publisher and a source together.
///
/// The log has one partition and is empty at first. `received` waits until the log has the given number of records, and returns
/// them in their order.
pub async fn event_publisher(publisher: &dyn EventPublisher, received: impl AsyncFn(usize) -> Vec<OutgoingRecord>) {
    let record = |key: Option<&'static [u8]>, value: Option<&'static [u8]>, headers| OutgoingRecord {
        key: key.map(Bytes::from_static),
        value: value.map(Bytes::from_static),
        headers,
    };
    let null = Header { name: "same".to_owned(), value: None };
    let first = vec![
        record(None, None, Vec::new()),
        record(Some(b""), Some(b""), Vec::new()),
        record(Some(b"\0\xff"), Some(b"\xff\0"), vec![Header::new("same", "one"), null, Header::new("empty", "")]),
    ];
    let numbered = (0..500).map(|number: u32| OutgoingRecord::new(number.to_string()).with_key("user"));
    let second: Vec<_> = numbered.collect();
    publisher.publish(first.clone()).await.expect("published");
    publisher.publish(Vec::new()).await.expect("nothing to publish");
    publisher.publish(second.clone()).await.expect("published");

    let received = received(first.len() + second.len()).await;
    assert_eq!(received.len(), first.len() + second.len(), "the log has each record once");
    let (start, rest) = received.split_at(first.len());
    for record in &first {
        assert!(start.contains(record), "a record is missing, or a byte or a null of it changed: {record:?}");
    }
    let in_order = rest.iter().zip(&second).all(|(received, sent)| received == sent);
    assert!(in_order, "records of one key are out of order");
}
