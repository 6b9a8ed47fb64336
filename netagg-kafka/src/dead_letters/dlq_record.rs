//! A message of the dead-letter topic.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use netagg_core::{
    DeadLetter, Header, InvalidKind, OutgoingRecord, PartitionId, Record, RecordPosition, RecordTimestamp,
};

/// A message of the dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct DlqRecord {
    /// The message that was read.
    pub record: Record,
    /// The origin that netagg's headers describe. `None` for a foreign message, whose headers netagg cannot have written.
    pub origin: Option<DlqOrigin>,
}

/// The record that a dead letter was made of, and why netagg did not accept it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct DlqOrigin {
    /// The rule that the record breaks.
    pub kind: InvalidKind,
    /// The field, the found value and the accepted values.
    pub detail: String,
    /// The position of the record, which may be deleted by now. A crash may leave several copies of a dead letter. All
    /// copies have the same source.
    pub source: RecordPosition,
    /// The record's timestamp, if it had one.
    pub timestamp: Option<RecordTimestamp>,
    /// The original length of the value, if the value was cut.
    pub truncated: Option<u64>,
}

/// The kind of a message in the dead-letter topic. Kinds are ordered by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DlqKind {
    /// The kind of the error that netagg found.
    Invalid(InvalidKind),
    /// netagg did not write the message.
    Foreign,
}

impl DlqKind {
    /// Its name: the name of the [`InvalidKind`], or `foreign`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid(kind) => kind.as_str(),
            Self::Foreign => "foreign",
        }
    }

    /// The kind of a dead letter with this origin.
    pub fn of(origin: Option<&DlqOrigin>) -> Self {
        origin.map_or(Self::Foreign, |origin| Self::Invalid(origin.kind))
    }

    /// Every kind, the foreign messages last.
    pub fn all() -> impl Iterator<Item = Self> {
        InvalidKind::ALL.into_iter().map(Self::Invalid).chain([Self::Foreign])
    }
}

impl fmt::Display for DlqKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Ord for DlqKind {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for DlqKind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl DlqRecord {
    pub(crate) fn new(record: Record) -> Self {
        Self { origin: DlqOrigin::parse(&record.headers), record }
    }

    /// The kind of the dead letter.
    pub fn kind(&self) -> DlqKind {
        DlqKind::of(self.origin.as_ref())
    }

    /// The position of the dead letter itself.
    pub fn position(&self) -> RecordPosition {
        RecordPosition { partition: self.record.partition.clone(), offset: self.record.offset }
    }

    /// The headers of the source record.
    pub fn own_headers(&self) -> impl Iterator<Item = &Header> {
        self.record.headers.iter().filter(|header| !header.name.starts_with(DeadLetter::HEADER_PREFIX))
    }

    /// The record to send to `topic` again: it has the key, the value and the own headers of the dead letter.
    ///
    /// # Errors
    /// If the dead letter is foreign, its value was cut, or it came from another topic.
    pub fn into_replayable(self, topic: &str) -> Result<Replayable, Unreplayable> {
        let headers = self.own_headers().cloned().collect();
        let dead_letter = self.position();
        let origin = self.origin.ok_or(Unreplayable::Foreign)?;
        if &*origin.source.partition.topic != topic {
            return Err(Unreplayable::OtherTopic);
        }
        if origin.truncated.is_some() {
            return Err(Unreplayable::Truncated);
        }
        let record = OutgoingRecord { key: self.record.key, value: self.record.value, headers };
        Ok(Replayable { dead_letter, source: origin.source, record })
    }
}

impl DlqOrigin {
    /// `None` unless `headers` has all required headers of netagg, each header once and in its form.
    fn parse(headers: &[Header]) -> Option<Self> {
        let kind = text(headers, DeadLetter::ERROR).ok()??;
        let topic = text(headers, DeadLetter::SOURCE_TOPIC).ok()??;
        let partition = number::<i32>(headers, DeadLetter::SOURCE_PARTITION)?.filter(|number| *number >= 0)?;
        let offset = number::<i64>(headers, DeadLetter::SOURCE_OFFSET)?.filter(|number| *number >= 0)?;
        let timestamp = number(headers, DeadLetter::SOURCE_TIMESTAMP)?.map(RecordTimestamp::from_millis);
        Some(Self {
            kind: InvalidKind::ALL.into_iter().find(|known| known.as_str() == kind)?,
            detail: text(headers, DeadLetter::ERROR_DETAIL).ok()??.to_owned(),
            source: RecordPosition { partition: PartitionId::new(topic, partition), offset },
            timestamp,
            truncated: number(headers, DeadLetter::TRUNCATED)?,
        })
    }
}

/// The error for a header that appears more than once, or is not text.
struct Malformed;

fn text<'a>(headers: &'a [Header], name: &str) -> Result<Option<&'a str>, Malformed> {
    let mut found = headers.iter().filter(|header| header.name == name);
    let Some(header) = found.next() else { return Ok(None) };
    let value = header.value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
    if found.next().is_none() { value.map(Some).ok_or(Malformed) } else { Err(Malformed) }
}

/// The number in a header: `None` if the header holds something else, `Some(None)` if there is no such header.
fn number<T: FromStr>(headers: &[Header], name: &str) -> Option<Option<T>> {
    match text(headers, name).ok()? {
        None => Some(None),
        Some(text) => text.parse().ok().map(Some),
    }
}

/// A dead letter that can be sent to the topic from which it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayable {
    pub(super) dead_letter: RecordPosition,
    pub(super) source: RecordPosition,
    pub(super) record: OutgoingRecord,
}

impl Replayable {
    /// The position of the record that the dead letter was made of.
    pub fn source(&self) -> &RecordPosition {
        &self.source
    }

    /// The size of key, value and headers, in bytes.
    pub fn size(&self) -> usize {
        let OutgoingRecord { key, value, headers } = &self.record;
        let values = headers.iter().map(|header| &header.value).chain([key, value]);
        values.flatten().map(bytes::Bytes::len).chain(headers.iter().map(|header| header.name.len())).sum()
    }
}

/// Why a message of the dead-letter topic cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::exhaustive_enums)]
pub enum Unreplayable {
    /// netagg did not write the message.
    Foreign,
    /// The record came from another topic than the topic of events.
    OtherTopic,
    /// The value was cut to fit the topic's limit.
    Truncated,
}

impl fmt::Display for Unreplayable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Foreign => "foreign",
            Self::OtherTopic => "from another topic",
            Self::Truncated => "truncated",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netagg_core::EventLimits;

    fn written(timestamp: Option<i64>) -> DeadLetter {
        let record = Record {
            partition: PartitionId::new("events", 3),
            offset: 42,
            timestamp: timestamp.map(RecordTimestamp::from_millis),
            key: Some("user".into()),
            value: Some("no JSON".into()),
            headers: vec![Header::new("own", "kept"), Header::new("netagg-error", "replaced")],
        };
        let reason = EventLimits::default().admit(&record).unwrap_err();
        DeadLetter { record, reason }
    }

    fn read(headers: Vec<Header>) -> DlqRecord {
        let partition = PartitionId::new("events.dlq", 1);
        let DeadLetter { record, .. } = written(None);
        DlqRecord::new(Record { partition, offset: 7, headers, ..record })
    }

    #[test]
    fn the_headers_of_a_written_dead_letter_are_read_back() {
        for timestamp in [None, Some(5_000), Some(-1_000), Some(1_761_000_000_000_000), Some(i64::MAX)] {
            let written = written(timestamp);
            let dead_letter = read(written.headers());
            let origin = dead_letter.origin.clone().unwrap();
            assert_eq!(origin.kind, InvalidKind::MalformedJson);
            assert_eq!(origin.detail, written.reason.to_string());
            assert_eq!(origin.source.to_string(), "events/3/42");
            assert_eq!(origin.timestamp, written.record.timestamp);
            assert_eq!(origin.truncated, None);
            let replayable = dead_letter.into_replayable("events").unwrap();
            let headers = vec![Header::new("own", "kept")];
            let DeadLetter { record, .. } = written;
            assert_eq!(replayable.record, OutgoingRecord { key: record.key, value: record.value, headers });
        }
    }

    #[test]
    fn a_message_without_netaggs_headers_is_foreign() {
        let headers = written(Some(5_000)).headers();
        for at in 1..headers.len() {
            let mut without = headers.clone();
            let removed = without.remove(at);
            let is_optional = removed.name == "netagg-source-timestamp";
            assert_eq!(read(without).origin.is_some(), is_optional, "without {}", removed.name);

            let mut twice = headers.clone();
            twice.push(removed.clone());
            assert_eq!(read(twice).origin, None, "{} twice", removed.name);

            let mut null = headers.clone();
            null[at].value = None;
            assert_eq!(read(null).origin, None, "{} null", removed.name);
        }
        for (name, value) in [
            ("netagg-error", "no_such_kind"),
            ("netagg-error-detail", "\u{0}"),
            ("netagg-source-partition", "-1"),
            ("netagg-source-partition", "4294967296"),
            ("netagg-source-offset", "five"),
            ("netagg-source-offset", "-5"),
            ("netagg-source-timestamp", "yesterday"),
            ("netagg-source-timestamp", "99999999999999999999"),
            ("netagg-truncated", ""),
        ] {
            let mut changed = headers.clone();
            changed.retain(|header| header.name != name);
            changed.push(Header::new(name, value));
            assert_eq!(read(changed).origin.is_some(), value == "\u{0}", "{name}: {value}");
        }
        let dead_letter = read(vec![Header::new("own", "x")]);
        assert_eq!(dead_letter.into_replayable("events"), Err(Unreplayable::Foreign));
    }

    #[test]
    fn only_complete_dead_letters_of_the_topic_are_replayed() {
        let mut headers = written(None).headers();
        assert_eq!(read(headers.clone()).into_replayable("other"), Err(Unreplayable::OtherTopic));
        headers.push(Header::new(DeadLetter::TRUNCATED, "70000"));
        assert_eq!(read(headers).into_replayable("events"), Err(Unreplayable::Truncated));
    }
}
