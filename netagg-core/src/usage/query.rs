//! Requests to the usage service, their responses, and the errors of invalid requests.

use std::fmt;

use crate::aggregate::AggregateRow;
use crate::event::{Event, EventType, UserId};
use crate::granularity::Granularity;
use crate::time::{Day, Timestamp};
use crate::zone::Zone;

/// The description of accepted cursors in error messages.
pub const CURSOR_ACCEPTED: &str = "next_cursor of a page of the same user, range and type";

/// A request for a user's events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct DetailRequest {
    /// The user.
    pub user_id: UserId,
    /// The start of the range of `started_at`, inclusive. The default is [`DEFAULT_DAYS`](super::DEFAULT_DAYS) days before
    /// `to`.
    pub from: Option<Timestamp>,
    /// The end of the range of `started_at`, exclusive. The default is now.
    pub to: Option<Timestamp>,
    /// The type of the events. `None` means all types.
    pub event_type: Option<EventType>,
    /// The `next_cursor` of the previous page. `None` requests the first page.
    pub cursor: Option<String>,
    /// The maximum number of events, 1 to [`MAX_LIMIT`](super::MAX_LIMIT). If it is `None`, a page has at most
    /// [`DEFAULT_LIMIT`](super::DEFAULT_LIMIT) events, and a stream has no limit.
    pub limit: Option<u32>,
}

impl DetailRequest {
    /// A request for the first page of all events of the last [`DEFAULT_DAYS`](super::DEFAULT_DAYS) days.
    pub fn of(user_id: UserId) -> Self {
        Self { user_id, from: None, to: None, event_type: None, cursor: None, limit: None }
    }
}

/// A page of a user's events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct DetailPage {
    /// The user.
    pub user_id: UserId,
    /// The start of the range, inclusive.
    pub from: Timestamp,
    /// The end of the range, exclusive.
    pub to: Timestamp,
    /// The events, newest first. The page has as many events as the limit allows, unless the listing ends or the events
    /// would exceed [`MAX_PAGE_BYTES`](super::MAX_PAGE_BYTES).
    pub items: Vec<Event>,
    /// The cursor of the next page; `None` if this page is the last page.
    pub next_cursor: Option<String>,
    /// The number of events in the whole range that match the filter. It is the same on each page.
    pub total_count: u64,
}

/// A request for the totals of all users.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct AggregatesRequest {
    /// Whether each row of totals is for a day or for a month.
    pub granularity: Granularity,
    /// The first day, inclusive. By default the range has [`DEFAULT_DAYS`](super::DEFAULT_DAYS) days, including
    /// both ends. For months, only the month of this day counts.
    pub from: Option<Day>,
    /// The last day, inclusive. The default is today. For months, only the month of this day counts.
    pub to: Option<Day>,
    /// The type of the events. `None` means all types.
    pub event_type: Option<EventType>,
    /// The time zone of the days and months.
    pub zone: Zone,
}

/// A request for the totals of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct UserAggregatesRequest {
    /// The user.
    pub user_id: UserId,
    /// The range, the granularity, the zone and the type of the totals.
    pub totals: AggregatesRequest,
}

/// The totals of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct AggregatesAnswer {
    /// Whether each row of totals is for a day or for a month.
    pub granularity: Granularity,
    /// The first day.
    pub from: Day,
    /// The last day.
    pub to: Day,
    /// The time zone of the days and months.
    pub zone: Zone,
    /// The totals contain every event that the log held at this instant. They may also contain later events. `None` while no
    /// such instant is known.
    pub complete_through: Option<Timestamp>,
    /// The totals, ordered by date, then by type. A date and type without events has no row.
    pub rows: Vec<AggregateRow>,
}

/// The totals of one user in a range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct UserAggregatesAnswer {
    /// The user.
    pub user_id: UserId,
    /// The totals.
    pub totals: AggregatesAnswer,
}

/// An invalid request, with each invalid parameter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct InvalidQuery {
    /// The invalid parameters, at least one.
    pub problems: Vec<InvalidParameter>,
}

impl InvalidQuery {
    /// An error about one invalid parameter.
    pub fn parameter(name: impl Into<String>, found: impl Into<String>, accepted: impl Into<String>) -> Self {
        Self { problems: vec![InvalidParameter::new(name, found, accepted)] }
    }

    /// An error about several invalid parameters.
    pub fn all(problems: Vec<InvalidParameter>) -> Self {
        Self { problems }
    }
}

impl fmt::Display for InvalidQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// An invalid parameter: its name, the value that was found (shortened), and the values that are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidParameter {
    /// The name of the parameter in the API.
    pub name: String,
    /// The value that was found.
    pub found: String,
    /// A description of the accepted values.
    pub accepted: String,
}

impl InvalidParameter {
    /// The found value is cut to this many characters. gRPC clients accept 8 KiB of metadata. The found values of
    /// six parameters fit into it, even if each character has four bytes and is percent-encoded.
    const MAX_FOUND: usize = 40;

    /// An error about the parameter `name` with the value `found`.
    pub fn new(name: impl Into<String>, found: impl Into<String>, accepted: impl Into<String>) -> Self {
        let cut = |mut text: String| {
            if let Some((end, _)) = text.char_indices().nth(Self::MAX_FOUND) {
                text.truncate(end);
                text.push('…');
            }
            text
        };
        // The caller may have chosen the name, too: an error also names an unknown parameter.
        Self { name: cut(name.into()), found: cut(found.into()), accepted: accepted.into() }
    }
}

impl fmt::Display for InvalidParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}; accepted: {}", self.name, self.found, self.accepted)
    }
}
