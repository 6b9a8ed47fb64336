//! The test suite for the destination of dead letters.

use bytes::Bytes;

use super::check;
use crate::dead_letter::DeadLetter;
use crate::event::EventLimits;
use crate::ports::DeadLetters;
use crate::record::{Header, OutgoingRecord, PartitionId, Record, RecordTimestamp};

/// Tests every behaviour that [`DeadLetters`] promises. `received` waits for the given number of dead letters, and returns them
/// in the order in which they were sent.
pub async fn dead_letters(dead_letters: &dyn DeadLetters, received: impl AsyncFn(usize) -> Vec<OutgoingRecord>) {
    let record = |offset, key: Option<&'static [u8]>, value: Option<&'static [u8]>, headers| Record {
        partition: PartitionId::new("events.telecom", 3),
        offset,
        timestamp: Some(RecordTimestamp::from_millis(1_761_000_000_123)),
        key: key.map(Bytes::from_static),
        value: value.map(Bytes::from_static),
        headers,
    };
    let own = Header { name: "trace".to_owned(), value: None };
    let sent: Vec<_> = [
        record(7, Some(b"user"), Some(b"\xff\0 not JSON"), vec![own.clone(), Header::new("netagg-error", "forged")]),
        record(8, None, None, Vec::new()),
        record(9, Some(b""), Some(b""), Vec::new()),
        Record { timestamp: None, ..record(10, None, Some(b"[]"), Vec::new()) },
    ]
    .into_iter()
    .map(|record| {
        let reason = EventLimits::default().admit(&record).expect_err("an invalid event");
        DeadLetter { record, reason }
    })
    .collect();
    dead_letters.send(&[]).await.expect("nothing to send");
    dead_letters.send(&sent).await.expect("sent");

    let received = received(sent.len()).await;
    assert_eq!(received.len(), sent.len());
    for (sent, received) in sent.iter().zip(&received) {
        check::same("the key, byte for byte, with null unchanged", &received.key, &sent.record.key);
        check::same("the value, byte for byte, with null unchanged", &received.value, &sent.record.value);
        check::same_items("headers", &received.headers, &sent.headers());
    }
    let headers = &received[0].headers;
    let value = |name: &str| {
        let found: Vec<_> = headers.iter().filter(|header| header.name == name).collect();
        assert_eq!(found.len(), 1, "{name}");
        found[0].value.as_deref().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    };
    assert_eq!(headers[0], own);
    assert_eq!(value("netagg-error").as_deref(), Some("not_utf8"));
    assert_eq!(value("netagg-source-topic").as_deref(), Some("events.telecom"));
    assert_eq!(value("netagg-source-partition").as_deref(), Some("3"));
    assert_eq!(value("netagg-source-offset").as_deref(), Some("7"));
    assert_eq!(value("netagg-source-timestamp").as_deref(), Some("1761000000123"));
}
