//! Validated requests: each has its range, and its cursor position or its days.

use std::time::Duration;

use super::cursor::{Cursor, CursorSecret};
use super::limits::{DEFAULT_DAYS, MAX_DAYS, MAX_LIMIT, MAX_ZONE_DAYS};
use super::query::{AggregatesRequest, CURSOR_ACCEPTED, DetailRequest, InvalidParameter, InvalidQuery};
use crate::event::UserId;
use crate::granularity::Granularity;
use crate::ports::{TimelineFilter, TimelinePosition};
use crate::time::{Day, Timestamp};
use crate::zone::Zone;

/// A range is recent if its end is later than now minus this time. Events of a recent range still arrive.
pub(super) const RECENT: Duration = Duration::from_secs(60 * 60);

/// A validated request for a user's events, made by [`UsageService::prepare_detail`](super::UsageService::prepare_detail).
#[derive(Clone, Debug)]
pub struct PreparedDetail {
    pub(super) request: DetailRequest,
    pub(super) filter: TimelineFilter,
    /// The position of the event after which the listing starts.
    pub(super) after: Option<TimelinePosition>,
    pub(super) is_recent: bool,
}

/// A validated request for the totals of all users, made by
/// [`UsageService::prepare_aggregates`](super::UsageService::prepare_aggregates).
#[derive(Clone, Debug)]
pub struct PreparedAggregates {
    pub(super) request: AggregatesRequest,
    pub(super) range: TotalsRange,
}

/// A validated request for the totals of one user, made by
/// [`UsageService::prepare_user_aggregates`](super::UsageService::prepare_user_aggregates).
#[derive(Clone, Debug)]
pub struct PreparedUserAggregates {
    pub(super) user_id: UserId,
    pub(super) totals: PreparedAggregates,
}

/// The days of a request for totals.
#[derive(Clone, Copy, Debug)]
pub(super) struct TotalsRange {
    /// The first day, as requested.
    pub(super) from: Day,
    /// The last day, as requested.
    pub(super) to: Day,
    /// The first day of the first period. For months, it is the first day of the month of `from`.
    pub(super) first: Day,
    /// The last day of the last period. For months, it is the last day of the month of `to`.
    pub(super) last: Day,
}

impl PreparedDetail {
    pub(super) fn new(request: DetailRequest, now: Timestamp, secret: &CursorSecret) -> Result<Self, InvalidQuery> {
        let mut problems = Vec::new();
        if let Some(limit) = request.limit.filter(|limit| !(1..=MAX_LIMIT).contains(limit)) {
            problems.push(InvalidParameter::new("limit", limit.to_string(), format!("1 to {MAX_LIMIT}")));
        }
        let cursor = request.cursor.as_deref().and_then(|text| {
            let cursor = Cursor::open(text, &request, secret);
            if cursor.is_none() {
                problems.push(InvalidParameter::new("cursor", text, CURSOR_ACCEPTED));
            }
            cursor
        });
        let (from, to) = match &cursor {
            Some(cursor) => (cursor.from, cursor.to),
            None => {
                let to = request.to.unwrap_or(now);
                let from = request.from.unwrap_or_else(|| to.saturating_sub(days(DEFAULT_DAYS)));
                (from, to)
            }
        };
        if from > to {
            problems.push(start_after_end(from.to_string(), to.to_string()));
        }
        if !problems.is_empty() {
            return Err(InvalidQuery::all(problems));
        }
        let filter = TimelineFilter { user_id: request.user_id.clone(), from, to, event_type: request.event_type };
        let is_recent = to > now.saturating_sub(RECENT);
        Ok(Self { request, filter, after: cursor.map(|cursor| cursor.after), is_recent })
    }

    /// The user of the requested events.
    pub fn user_id(&self) -> &UserId {
        &self.request.user_id
    }
}

impl PreparedAggregates {
    pub(super) fn of_all_users(request: AggregatesRequest, now: Timestamp) -> Result<Self, InvalidQuery> {
        let max_days = if request.zone == Zone::UTC { MAX_DAYS } else { MAX_ZONE_DAYS };
        Self::new(request, now, max_days)
    }

    pub(super) fn of_a_user(request: AggregatesRequest, now: Timestamp) -> Result<Self, InvalidQuery> {
        Self::new(request, now, MAX_DAYS)
    }

    fn new(request: AggregatesRequest, now: Timestamp, max_days: u32) -> Result<Self, InvalidQuery> {
        let to = request.to.unwrap_or_else(|| request.zone.day_of(now));
        // The range includes both days: the first of 30 days is 29 days before the last.
        let from = request.from.unwrap_or_else(|| to.saturating_add_days(1 - i64::from(DEFAULT_DAYS)));
        let (first, last) = match request.granularity {
            Granularity::Day => (from, to),
            Granularity::Month => (from.month().first_day(), to.month().last_day()),
        };
        if first > last {
            return Err(InvalidQuery::all(vec![start_after_end(from.to_string(), to.to_string())]));
        }
        let length = last.epoch_days() - first.epoch_days() + 1;
        if length > i64::from(max_days) {
            let found = format!("{first} to {last}, {length} days");
            let without_zone = if max_days < MAX_DAYS { format!(" ({MAX_DAYS} without tz)") } else { String::new() };
            let accepted = format!("a range of at most {max_days} days{without_zone}");
            return Err(InvalidQuery::parameter("from", found, accepted));
        }
        Ok(Self { request, range: TotalsRange { from, to, first, last } })
    }
}

impl PreparedUserAggregates {
    /// The user of the requested totals.
    pub fn user_id(&self) -> &UserId {
        &self.user_id
    }
}

fn start_after_end(from: String, to: String) -> InvalidParameter {
    InvalidParameter::new("from", from, format!("not later than `to`, which is {to}"))
}

fn days(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 86_400)
}
