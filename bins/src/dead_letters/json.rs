//! Dead letters as JSON.

use netagg_core::{Header, Place, RecordTimestamp, Timestamp};
use netagg_kafka::{LetterKind, LetterOrigin};
use serde::Serialize;

use super::text::show_place;
use crate::Failure;
use crate::output::outln;
use crate::printable::json_line;

/// What a list tells of a letter. Bytes that are no UTF-8 are in hexadecimal digits, under a name that says so.
#[derive(Debug, Serialize)]
pub(super) struct LetterJson<'a> {
    place: String,
    time: Option<Timestamp>,
    kind: &'static str,
    detail: Option<&'a str>,
    source: Option<SourceJson<'a>>,
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_hex: Option<String>,
}

#[derive(Debug, Serialize)]
struct SourceJson<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    /// `None` also if the record's timestamp is out of range.
    timestamp: Option<Timestamp>,
    timestamp_millis: Option<i64>,
}

/// A letter whole.
#[derive(Debug, Serialize)]
pub(super) struct WholeJson<'a> {
    #[serde(flatten)]
    pub(super) letter: LetterJson<'a>,
    pub(super) truncated: Option<u64>,
    pub(super) headers: Vec<HeaderJson<'a>>,
    #[serde(flatten)]
    pub(super) value: ValueJson<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct HeaderJson<'a> {
    name: &'a str,
    #[serde(flatten)]
    value: ValueJson<'a>,
}

#[derive(Debug, Serialize)]
pub(super) struct ValueJson<'a> {
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

impl<'a> LetterJson<'a> {
    pub(super) fn new(
        place: &Place,
        time: Option<Timestamp>,
        origin: Option<&'a LetterOrigin>,
        key: Option<&'a [u8]>,
    ) -> Self {
        let source = origin.map(|LetterOrigin { source, timestamp, .. }| SourceJson {
            topic: &source.partition.topic,
            partition: source.partition.number,
            offset: source.offset,
            timestamp: timestamp.and_then(RecordTimestamp::instant),
            timestamp_millis: timestamp.map(RecordTimestamp::as_millis),
        });
        let detail = origin.map(|origin| origin.detail.as_str());
        let (key, key_hex) = text_or_hex(key);
        Self { place: show_place(place), time, kind: LetterKind::of(origin).as_str(), detail, source, key, key_hex }
    }
}

impl<'a> From<&'a Header> for HeaderJson<'a> {
    fn from(header: &'a Header) -> Self {
        Self { name: &header.name, value: ValueJson::new(header.value.as_deref()) }
    }
}

impl<'a> ValueJson<'a> {
    pub(super) fn new(bytes: Option<&'a [u8]>) -> Self {
        let (value, value_hex) = text_or_hex(bytes);
        Self { value, value_hex }
    }
}

fn text_or_hex(bytes: Option<&[u8]>) -> (Option<&str>, Option<String>) {
    match bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| bytes)) {
        None => (None, None),
        Some(Ok(text)) => (Some(text), None),
        Some(Err(bytes)) => (None, Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())),
    }
}

pub(super) fn print(value: &impl Serialize) -> Result<(), Failure> {
    let line = json_line(value).map_err(|error| Failure::Failed(error.into()))?;
    outln!("{line}");
    Ok(())
}
