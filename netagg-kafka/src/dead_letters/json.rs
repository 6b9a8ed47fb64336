//! Dead letters as JSON. Bytes that are not UTF-8 are in hexadecimal digits, under a name that says so.

use netagg_core::{Header, Place, RecordTimestamp, Timestamp};
use serde::{Serialize, Serializer};

use super::newest::LetterSummary;
use super::stored_letter::{LetterKind, LetterOrigin, StoredLetter};

#[derive(Serialize)]
struct Summary<'a> {
    place: String,
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
    fn new(place: &Place, time: Option<Timestamp>, origin: Option<&'a LetterOrigin>, key: Option<&'a [u8]>) -> Self {
        let source = origin.map(|LetterOrigin { source, timestamp, .. }| Source {
            topic: &source.partition.topic,
            partition: source.partition.number,
            offset: source.offset,
            timestamp: timestamp.and_then(RecordTimestamp::instant),
            timestamp_millis: timestamp.map(RecordTimestamp::as_millis),
        });
        let detail = origin.map(|origin| origin.detail.as_str());
        let (key, key_hex) = text_or_hex(key);
        let place = format!("{}:{}", place.partition.number, place.offset);
        Self { place, time, kind: LetterKind::of(origin).as_str(), detail, source, key, key_hex }
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

impl Serialize for LetterSummary {
    /// An object with `place` (`partition:offset`), `time`, `kind`, `detail`, `source` and `key`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Summary::new(&self.place, self.time, self.origin.as_ref(), self.key.as_deref()).serialize(serializer)
    }
}

impl Serialize for StoredLetter {
    /// The object of a [`LetterSummary`], with `truncated`, `headers` and `value`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { record, origin } = self;
        let whole = Whole {
            summary: Summary::new(&self.place(), record.instant(), origin.as_ref(), record.key.as_deref()),
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
