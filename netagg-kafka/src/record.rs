//! Copies messages of librdkafka.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use netagg_core::{Header, PartitionId, Record, RecordTimestamp};
use rdkafka::message::{BorrowedMessage, Headers, Message};

/// Copies `message`. A borrowed message would keep its whole fetch in memory.
pub(crate) fn copy(message: &BorrowedMessage<'_>, partition: PartitionId) -> Record {
    Record {
        partition,
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().map(RecordTimestamp::from_millis),
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: message.headers().map(headers).unwrap_or_default(),
    }
}

/// All headers except headers whose name is not UTF-8: rdkafka panics on such a header, and it must not block its partition.
fn headers(headers: &impl Headers) -> Vec<Header> {
    let header = |index| {
        let header = headers.try_get(index)?;
        Some(Header { name: header.key.to_owned(), value: header.value.map(Bytes::copy_from_slice) })
    };
    (0..headers.count()).filter_map(|index| catch_unwind(AssertUnwindSafe(|| header(index))).ok().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::message::FromBytes;

    struct WithABadName;

    impl Headers for WithABadName {
        fn count(&self) -> usize {
            3
        }

        fn try_get(&self, index: usize) -> Option<rdkafka::message::Header<'_, &[u8]>> {
            let name = std::str::from_utf8([&b"a"[..], b"\xff", b"b"][index]).unwrap();
            Some(rdkafka::message::Header { key: name, value: (index > 0).then_some(b"value") })
        }

        fn try_get_as<V: FromBytes + ?Sized>(
            &self,
            _: usize,
        ) -> Option<Result<rdkafka::message::Header<'_, &V>, V::Error>> {
            None
        }
    }

    #[test]
    fn a_header_name_that_cannot_be_read_is_left_out() {
        let expected = [Header { name: "a".to_owned(), value: None }, Header::new("b", &b"value"[..])];
        assert_eq!(headers(&WithABadName), expected);
    }
}
