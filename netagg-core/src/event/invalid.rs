//! Why a message is not a valid event.

use std::borrow::Cow;
use std::fmt;

/// The longest excerpt of bad input that an error carries, in bytes.
const MAX_FOUND: usize = 120;

/// The machine-readable reason. The header `netagg-error` of a dead letter contains it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InvalidKind {
    /// The message has no value (a tombstone).
    NullValue,
    /// The value of the message is empty.
    EmptyValue,
    /// The value is not UTF-8.
    NotUtf8,
    /// The value is not exactly one JSON text.
    MalformedJson,
    /// The value is JSON, but not an object.
    NotAnObject,
    /// The JSON is nested deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    TooDeep,
    /// A field of the contract occurs twice.
    DuplicateField,
    /// A required field is absent or null.
    MissingField,
    /// A field has a wrong JSON type.
    WrongType,
    /// `event_id` is not a UUID of the form 8-4-4-4-12.
    InvalidUuid,
    /// A text is empty or too long.
    InvalidLength,
    /// `type` is not one of the five event types.
    UnknownType,
    /// A time is not RFC 3339, does not exist, or is out of range.
    InvalidTime,
    /// An integer is outside its range.
    OutOfRange,
    /// `ended_at` is before `started_at`.
    EndsBeforeStart,
    /// A field or `meta` contains a NUL character.
    NulCharacter,
    /// A field or `meta` contains one half of a UTF-16 surrogate pair without the other half.
    LoneSurrogate,
    /// `meta` contains a number that PostgreSQL's `jsonb` cannot hold.
    NumberTooLarge,
    /// The record has no timestamp, so the age of the event is unknown.
    NoTimestamp,
    /// The timestamp of the record is outside the years 0001 to 9999. This happens when a producer sends microseconds.
    TimestampOutOfRange,
    /// `started_at` is before the timestamp of the record by more than [`EventLimits::max_age`](crate::EventLimits::max_age).
    TooOld,
    /// `started_at` is after the timestamp of the record by more than
    /// [`EventLimits::max_future`](crate::EventLimits::max_future).
    TooFarInFuture,
    /// `started_at` is in a month that retention has dropped, or in an earlier month.
    MonthDropped,
    /// The message breaks a rule of the application's own decoder: see [`InvalidEvent::custom`].
    Custom,
    /// The store refused an event that netagg had validated. This is a bug in netagg. The dead letter keeps the message, so that
    /// it is not lost.
    RefusedByStore,
}

impl InvalidKind {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 25] = [
        Self::NullValue,
        Self::EmptyValue,
        Self::NotUtf8,
        Self::MalformedJson,
        Self::NotAnObject,
        Self::TooDeep,
        Self::DuplicateField,
        Self::MissingField,
        Self::WrongType,
        Self::InvalidUuid,
        Self::InvalidLength,
        Self::UnknownType,
        Self::InvalidTime,
        Self::OutOfRange,
        Self::EndsBeforeStart,
        Self::NulCharacter,
        Self::LoneSurrogate,
        Self::NumberTooLarge,
        Self::NoTimestamp,
        Self::TimestampOutOfRange,
        Self::TooOld,
        Self::TooFarInFuture,
        Self::MonthDropped,
        Self::Custom,
        Self::RefusedByStore,
    ];

    /// The kind in snake_case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NullValue => "null_value",
            Self::EmptyValue => "empty_value",
            Self::NotUtf8 => "not_utf8",
            Self::MalformedJson => "malformed_json",
            Self::NotAnObject => "not_an_object",
            Self::TooDeep => "too_deep",
            Self::DuplicateField => "duplicate_field",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::InvalidUuid => "invalid_uuid",
            Self::InvalidLength => "invalid_length",
            Self::UnknownType => "unknown_type",
            Self::InvalidTime => "invalid_time",
            Self::OutOfRange => "out_of_range",
            Self::EndsBeforeStart => "ends_before_start",
            Self::NulCharacter => "nul_character",
            Self::LoneSurrogate => "lone_surrogate",
            Self::NumberTooLarge => "number_too_large",
            Self::NoTimestamp => "no_timestamp",
            Self::TimestampOutOfRange => "timestamp_out_of_range",
            Self::TooOld => "too_old",
            Self::TooFarInFuture => "too_far_in_future",
            Self::MonthDropped => "month_dropped",
            Self::Custom => "custom",
            Self::RefusedByStore => "refused_by_store",
        }
    }
}

impl fmt::Display for InvalidKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The first rule that a message breaks: the kind of the error, the field, the found value (shortened) and the accepted values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidEvent {
    kind: InvalidKind,
    field: Option<&'static str>,
    found: Cow<'static, str>,
    accepted: Cow<'static, str>,
}

impl InvalidEvent {
    /// The error of your own decoder: the field, if the error is about a field, the found text, and a description of the accepted
    /// values. A long `found` is shortened.
    ///
    /// ```
    /// use netagg_core::InvalidEvent;
    ///
    /// let error = InvalidEvent::custom("duration", "\"ten\"", "seconds in digits");
    /// assert_eq!(error.to_string(), "duration: found \"ten\"; accepted: seconds in digits");
    /// let error = InvalidEvent::custom(None, "3 columns", "7 columns");
    /// assert_eq!(error.to_string(), "found 3 columns; accepted: 7 columns");
    /// assert_eq!(error.kind().as_str(), "custom");
    /// ```
    pub fn custom(
        field: impl Into<Option<&'static str>>,
        found: impl Into<Cow<'static, str>>,
        accepted: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field: field.into(), ..Self::message(InvalidKind::Custom, found, accepted) }
    }

    /// The error of a message that is wrong as a whole.
    pub(crate) fn message(
        kind: InvalidKind,
        found: impl Into<Cow<'static, str>>,
        accepted: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { kind, field: None, found: shorten(found.into()), accepted: accepted.into() }
    }

    /// The error of one field.
    pub(crate) fn field(
        kind: InvalidKind,
        field: &'static str,
        found: impl Into<Cow<'static, str>>,
        accepted: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { field: Some(field), ..Self::message(kind, found, accepted) }
    }

    pub(crate) fn out_of_range(field: &'static str, found: impl fmt::Display, max: u64) -> Self {
        Self::field(InvalidKind::OutOfRange, field, found.to_string(), format!("an integer from 0 to {max}"))
    }

    /// The machine-readable reason.
    pub fn kind(&self) -> InvalidKind {
        self.kind
    }

    /// The field that the error is about; `None` if it is about the whole message.
    pub fn field_name(&self) -> Option<&'static str> {
        self.field
    }
}

impl fmt::Display for InvalidEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = self.field {
            write!(f, "{field}: ")?;
        }
        write!(f, "found {}; accepted: {}", self.found, self.accepted)
    }
}

impl std::error::Error for InvalidEvent {}

fn shorten(found: Cow<'static, str>) -> Cow<'static, str> {
    if found.len() <= MAX_FOUND {
        return found;
    }
    let cut = found.floor_char_boundary(MAX_FOUND);
    Cow::Owned(format!("{}… ({} bytes)", &found[..cut], found.len()))
}
