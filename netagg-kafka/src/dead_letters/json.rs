//! Dead letters as JSON. Bytes that are not UTF-8 are written as hexadecimal digits, in a field whose name ends in `_hex`.

use netagg_core::{Header, RecordPosition, RecordTimestamp, Timestamp};
use serde::{Serialize, Serializer};

use super::dlq_record::{DlqKind, DlqOrigin, DlqRecord};
use super::newest::DlqSummary;

#[derive(Serialize)]
struct Summary<'a> {
    position: String,
    time: Option<Timestamp>,
    kind: &'static str,
    detail: Option<&'a str>,
    source: Option<Source<'a>>,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
}

#[derive(Serialize)]
struct Source<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    /// `None` also if the record's timestamp is out of range.
    timestamp: Option<Timestamp>,
    timestamp_millis: Option<i64>,
}

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    summary: Summary<'a>,
    truncated: Option<u64>,
    headers: Vec<NamedValue<'a>>,
    #[serde(flatten)]
    value: Value<'a>,
}

#[derive(Serialize)]
struct NamedValue<'a> {
    name: &'a str,
    #[serde(flatten)]
    value: Value<'a>,
}

#[derive(Serialize)]
struct Value<'a> {
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

impl<'a> Summary<'a> {
    fn new(
        position: &RecordPosition,
        time: Option<Timestamp>,
        origin: Option<&'a DlqOrigin>,
        key: Option<&'a [u8]>,
    ) -> Self {
        let source = origin.map(|DlqOrigin { source, timestamp, .. }| Source {
            topic: &source.partition.topic,
            partition: source.partition.number,
            offset: source.offset,
            timestamp: timestamp.and_then(RecordTimestamp::instant),
            timestamp_millis: timestamp.map(RecordTimestamp::as_millis),
        });
        let detail = origin.map(|origin| origin.detail.as_str());
        let (key, key_hex) = text_or_hex(key);
        let position = format!("{}:{}", position.partition.number, position.offset);
        Self { position, time, kind: DlqKind::of(origin).as_str(), detail, source, key, key_hex }
    }
}

impl<'a> NamedValue<'a> {
    fn new(header: &'a Header) -> Self {
        Self { name: &header.name, value: Value::new(header.value.as_deref()) }
    }
}

impl<'a> Value<'a> {
    fn new(bytes: Option<&'a [u8]>) -> Self {
        let (value, value_hex) = text_or_hex(bytes);
        Self { value, value_hex }
    }
}

impl Serialize for DlqSummary {
    /// An object with `position` (`partition:offset`), `time`, `kind`, `detail`, `source` and `key`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Summary::new(&self.position, self.time, self.origin.as_ref(), self.key.as_deref()).serialize(serializer)
    }
}

impl Serialize for DlqRecord {
    /// The object of a [`DlqSummary`], with `truncated`, `headers` and `value`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { record, origin } = self;
        let whole = Whole {
            summary: Summary::new(&self.position(), record.instant(), origin.as_ref(), record.key.as_deref()),
            truncated: origin.as_ref().and_then(|origin| origin.truncated),
            headers: record.headers.iter().map(NamedValue::new).collect(),
            value: Value::new(record.value.as_deref()),
        };
        whole.serialize(serializer)
    }
}

fn text_or_hex(bytes: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => (None, None),
        Some(Ok(text)) => (Some(text), None),
        Some(Err(bytes)) => (None, Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())),
    }
}
