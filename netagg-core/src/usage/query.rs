//! Questions to the usage service, and what is wrong with them.

use std::fmt;

use crate::aggregate::AggregateRow;
use crate::event::{Event, EventType, UserId};
use crate::granularity::Granularity;
use crate::time::{Day, Timestamp};
use crate::zone::Zone;

/// What cursors are accepted, for messages to people.
pub const CURSOR_ACCEPTED: &str = "next_cursor of a page of the same user, range and type";

/// A question for a user's events.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct DetailRequest {
    /// The user.
    pub user_id: UserId,
    /// The earliest `started_at`, inclusive; without it, [`DEFAULT_DAYS`](super::DEFAULT_DAYS) before `to`.
    pub from: Option<Timestamp>,
    /// The latest `started_at`, exclusive; without it, now.
    pub to: Option<Timestamp>,
    /// Only this type.
    pub event_type: Option<EventType>,
    /// Where the page before ended; the first page without it.
    pub cursor: Option<String>,
    /// The most events, 1 to [`MAX_LIMIT`](super::MAX_LIMIT). Without it [`DEFAULT_LIMIT`](super::DEFAULT_LIMIT) for a page, and no limit for a stream.
    pub limit: Option<u32>,
}

impl DetailRequest {
    /// The first page of everything of the last [`DEFAULT_DAYS`](super::DEFAULT_DAYS) days.
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
    /// The range's start, inclusive.
    pub from: Timestamp,
    /// The range's end, exclusive.
    pub to: Timestamp,
    /// The events, newest first: as many as were asked for, unless there are no more or they exceed
    /// [`MAX_PAGE_BYTES`](super::MAX_PAGE_BYTES).
    pub items: Vec<Event>,
    /// Where the next page begins; `None` at the end.
    pub next_cursor: Option<String>,
    /// How many events the whole range and filter have, whatever the page.
    pub total_count: u64,
}

/// A question for everybody's totals.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct AggregatesRequest {
    /// By day or by month.
    pub granularity: Granularity,
    /// The first day, inclusive; without it, [`DEFAULT_DAYS`](super::DEFAULT_DAYS) before `to`. For months its day is ignored.
    pub from: Option<Day>,
    /// The last day, inclusive; without it, today. For months its day is ignored.
    pub to: Option<Day>,
    /// Only this type.
    pub event_type: Option<EventType>,
    /// Whose days and months these are.
    pub zone: Zone,
}

/// A question for a user's totals.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct UserAggregatesRequest {
    /// The user.
    pub user_id: UserId,
    /// Which totals.
    pub totals: AggregatesRequest,
}

/// Totals of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct AggregatesAnswer {
    /// By day or by month.
    pub granularity: Granularity,
    /// The first day.
    pub from: Day,
    /// The last day.
    pub to: Day,
    /// Whose days and months these are.
    pub zone: Zone,
    /// Every event that the log held at this instant is in the totals, and maybe later ones; `None` while no such
    /// instant is known.
    pub complete_through: Option<Timestamp>,
    /// The totals by date, then type; only where there are events.
    pub rows: Vec<AggregateRow>,
}

/// A user's totals of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct UserAggregatesAnswer {
    /// The user.
    pub user_id: UserId,
    /// The totals.
    pub totals: AggregatesAnswer,
}

/// What is wrong with a question: every parameter that is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub struct InvalidQuery {
    /// At least one.
    pub problems: Vec<InvalidParameter>,
}

impl InvalidQuery {
    /// One wrong parameter.
    pub fn parameter(name: impl Into<String>, found: impl Into<String>, accepted: impl Into<String>) -> Self {
        Self { problems: vec![InvalidParameter::new(name, found, accepted)] }
    }

    /// Several wrong parameters.
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

/// A wrong parameter: its name, what was given (shortened) and what is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InvalidParameter {
    /// Its name in the API.
    pub name: String,
    /// What was given.
    pub found: String,
    /// What is accepted.
    pub accepted: String,
}

impl InvalidParameter {
    /// Found text is cut to this many characters: six of them, of four bytes each and percent-encoded, fit the 8 KiB of
    /// metadata that gRPC clients take.
    const MAX_FOUND: usize = 40;

    /// The parameter `name`, given as `found`.
    pub fn new(name: impl Into<String>, found: impl Into<String>, accepted: impl Into<String>) -> Self {
        let cut = |mut text: String| {
            if let Some((end, _)) = text.char_indices().nth(Self::MAX_FOUND) {
                text.truncate(end);
                text.push('…');
            }
            text
        };
        // An unknown parameter is named as it is given, too.
        Self { name: cut(name.into()), found: cut(found.into()), accepted: accepted.into() }
    }
}

impl fmt::Display for InvalidParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: found {}; accepted: {}", self.name, self.found, self.accepted)
    }
}
