//! The behaviours of a publisher, without a source of its own.

use bytes::Bytes;

use crate::ports::EventPublisher;
use crate::record::{Header, OutgoingRecord};

/// Every behaviour that [`EventPublisher`] promises, for a publisher that is not paired with an
/// [`EventSource`](crate::ports::EventSource); [`event_source`](super::event_source()) tests both together. `received` waits
/// for the given number of records in an empty log of one partition, and returns them in their order.
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
    assert_eq!(received.len(), first.len() + second.len(), "each record once");
    let (start, rest) = received.split_at(first.len());
    for record in &first {
        assert!(start.contains(record), "byte for byte, null stays null: {record:?}");
    }
    let in_order = rest.iter().zip(&second).all(|(received, sent)| received == sent);
    assert!(in_order, "records of one key stay in their order");
}
