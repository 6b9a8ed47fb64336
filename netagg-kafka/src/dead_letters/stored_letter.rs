//! A dead letter as it lies in its topic.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use netagg_core::{DeadLetter, Header, InvalidKind, OutgoingRecord, PartitionId, Place, Record, RecordTimestamp};

/// A message of the topic of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct StoredLetter {
    /// The message, as it was read.
    pub record: Record,
    /// What netagg's headers tell of it; `None` for a foreign message, one whose headers netagg cannot have written.
    pub origin: Option<LetterOrigin>,
}

/// Where a dead letter comes from, and why it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct LetterOrigin {
    /// The rule the record breaks.
    pub kind: InvalidKind,
    /// The field, what was found and what is accepted.
    pub detail: String,
    /// Where the record lies, or lay. Copies of a letter, as a crash may leave, have it in common.
    pub source: Place,
    /// The record's timestamp, if it had one.
    pub timestamp: Option<RecordTimestamp>,
    /// The length that the value had, if it had to be cut.
    pub truncated: Option<u64>,
}

/// The kind of a message in the topic of dead letters. Kinds are ordered by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LetterKind {
    /// The kind of the error that netagg found.
    Invalid(InvalidKind),
    /// netagg did not write the message.
    Foreign,
}

impl LetterKind {
    /// Its name: that of the [`InvalidKind`], or `foreign`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid(kind) => kind.as_str(),
            Self::Foreign => "foreign",
        }
    }

    /// The kind of a letter with this origin.
    pub fn of(origin: Option<&LetterOrigin>) -> Self {
        origin.map_or(Self::Foreign, |origin| Self::Invalid(origin.kind))
    }

    /// Every kind, the foreign messages last.
    pub fn all() -> impl Iterator<Item = Self> {
        InvalidKind::ALL.into_iter().map(Self::Invalid).chain([Self::Foreign])
    }
}

impl fmt::Display for LetterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Ord for LetterKind {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for LetterKind {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl StoredLetter {
    pub(crate) fn new(record: Record) -> Self {
        Self { origin: LetterOrigin::parse(&record.headers), record }
    }

    /// The kind of the letter.
    pub fn kind(&self) -> LetterKind {
        LetterKind::of(self.origin.as_ref())
    }

    /// Where the letter itself lies.
    pub fn place(&self) -> Place {
        Place { partition: self.record.partition.clone(), offset: self.record.offset }
    }

    /// The headers that came with the source record.
    pub fn own_headers(&self) -> impl Iterator<Item = &Header> {
        self.record.headers.iter().filter(|header| !header.name.starts_with(DeadLetter::HEADER_PREFIX))
    }

    /// The letter as it may be sent to `topic` again: with its key, its value and its own headers.
    ///
    /// # Errors
    /// For a letter that is not whole or did not come from there.
    pub fn into_replayable(self, topic: &str) -> Result<Replayable, Unreplayable> {
        let headers = self.own_headers().cloned().collect();
        let letter = self.place();
        let origin = self.origin.ok_or(Unreplayable::Foreign)?;
        if &*origin.source.partition.topic != topic {
            return Err(Unreplayable::OtherTopic);
        }
        if origin.truncated.is_some() {
            return Err(Unreplayable::Truncated);
        }
        let record = OutgoingRecord { key: self.record.key, value: self.record.value, headers };
        Ok(Replayable { letter, source: origin.source, record })
    }
}

impl LetterOrigin {
    /// `None` unless `headers` has all that netagg writes, each once and of its form.
    fn parse(headers: &[Header]) -> Option<Self> {
        let kind = text(headers, DeadLetter::ERROR).ok()??;
        let topic = text(headers, DeadLetter::SOURCE_TOPIC).ok()??;
        let partition = number::<i32>(headers, DeadLetter::SOURCE_PARTITION)?.filter(|number| *number >= 0)?;
        let offset = number::<i64>(headers, DeadLetter::SOURCE_OFFSET)?.filter(|number| *number >= 0)?;
        let timestamp = number(headers, DeadLetter::SOURCE_TIMESTAMP)?.map(RecordTimestamp::from_millis);
        Some(Self {
            kind: InvalidKind::ALL.into_iter().find(|known| known.as_str() == kind)?,
            detail: text(headers, DeadLetter::ERROR_DETAIL).ok()??.to_owned(),
            source: Place { partition: PartitionId::new(topic, partition), offset },
            timestamp,
            truncated: number(headers, DeadLetter::TRUNCATED)?,
        })
    }
}

/// A header that there is more than once, or that is no text.
struct Malformed;

fn text<'a>(headers: &'a [Header], name: &str) -> Result<Option<&'a str>, Malformed> {
    let mut found = headers.iter().filter(|header| header.name == name);
    let Some(header) = found.next() else { return Ok(None) };
    let value = header.value.as_deref().and_then(|value| std::str::from_utf8(value).ok());
    if found.next().is_none() { value.map(Some).ok_or(Malformed) } else { Err(Malformed) }
}

/// The number that a header holds: `None` if it holds something else, `Some(None)` without such a header.
fn number<T: FromStr>(headers: &[Header], name: &str) -> Option<Option<T>> {
    match text(headers, name).ok()? {
        None => Some(None),
        Some(text) => text.parse().ok().map(Some),
    }
}

/// A letter that may be sent to the topic it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayable {
    pub(super) letter: Place,
    pub(super) source: Place,
    pub(super) record: OutgoingRecord,
}

impl Replayable {
    /// Where the record lies that the letter was made of.
    pub fn source(&self) -> &Place {
        &self.source
    }

    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        let OutgoingRecord { key, value, headers } = &self.record;
        let values = headers.iter().map(|header| &header.value).chain([key, value]);
        values.flatten().map(bytes::Bytes::len).chain(headers.iter().map(|header| header.name.len())).sum()
    }
}

/// Why a message of the topic of dead letters cannot be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(clippy::exhaustive_enums)]
pub enum Unreplayable {
    /// netagg did not write it.
    Foreign,
    /// It came from another topic than the one events are sent to now.
    OtherTopic,
    /// Its value had to be cut to fit.
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

    fn read(headers: Vec<Header>) -> StoredLetter {
        let partition = PartitionId::new("events.dlq", 1);
        let DeadLetter { record, .. } = written(None);
        StoredLetter::new(Record { partition, offset: 7, headers, ..record })
    }

    #[test]
    fn what_is_written_is_read() {
        for timestamp in [None, Some(5_000), Some(-1_000), Some(1_761_000_000_000_000), Some(i64::MAX)] {
            let written = written(timestamp);
            let letter = read(written.headers());
            let origin = letter.origin.clone().unwrap();
            assert_eq!(origin.kind, InvalidKind::MalformedJson);
            assert_eq!(origin.detail, written.reason.to_string());
            assert_eq!(origin.source.to_string(), "events/3/42");
            assert_eq!(origin.timestamp, written.record.timestamp);
            assert_eq!(origin.truncated, None);
            let replayable = letter.into_replayable("events").unwrap();
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
        let letter = read(vec![Header::new("own", "x")]);
        assert_eq!(letter.into_replayable("events"), Err(Unreplayable::Foreign));
    }

    #[test]
    fn only_whole_letters_of_the_topic_are_replayed() {
        let mut headers = written(None).headers();
        assert_eq!(read(headers.clone()).into_replayable("other"), Err(Unreplayable::OtherTopic));
        headers.push(Header::new(DeadLetter::TRUNCATED, "70000"));
        assert_eq!(read(headers).into_replayable("events"), Err(Unreplayable::Truncated));
    }
}
