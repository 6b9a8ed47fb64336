//! The parameters of both transports, from text to questions: here, and nowhere else, it is decided what is accepted.

use std::str::FromStr;

use netagg_core::usage::{AggregatesRequest, DetailRequest, InvalidParameter, InvalidQuery, MAX_LIMIT};
use netagg_core::{EventType, Granularity};

/// Names no more wrong parameters than this, however many there are.
const MAX_PROBLEMS: usize = 16;

const TIME: &str = "an RFC 3339 time such as 2025-10-20T12:34:56Z (in a URL, the + of an offset is written %2B)";
const DATE: &str = "a date such as 2025-10-20";

/// The parameters of a request, each at most once, and what is wrong with it so far.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    given: Vec<(&'static str, String)>,
    problems: Vec<InvalidParameter>,
}

impl Parameters {
    /// Notes that `name` is given as `text`. The first one given counts; another is a problem.
    pub(crate) fn give(&mut self, name: &'static str, text: String) {
        if self.given.iter().any(|(given, _)| *given == name) {
            self.refuse(name, "it repeated", "it once");
        } else {
            self.given.push((name, text));
        }
    }

    /// Notes what is wrong with `name`, unless something is wrong with it already.
    pub(crate) fn refuse(&mut self, name: &str, found: &str, accepted: &str) {
        if self.problems.len() < MAX_PROBLEMS && self.problems.iter().all(|problem| problem.name != name) {
            self.problems.push(InvalidParameter::new(name, found, accepted));
        }
    }

    /// The question for a user's events that they ask.
    pub(crate) fn into_detail(mut self) -> Result<DetailRequest, InvalidQuery> {
        let user_id = self.required("user_id", "1 to 64 characters, none of them NUL");
        let from = self.optional("from", TIME);
        let to = self.optional("to", TIME);
        let cursor = self.optional("cursor", "");
        let limit = self.optional("limit", &format!("an integer from 1 to {MAX_LIMIT}")).map(|Limit(limit)| limit);
        let event_type = self.optional("type", EventType::ACCEPTED);
        match user_id {
            Some(user_id) if self.problems.is_empty() => {
                Ok(DetailRequest { user_id, from, to, event_type, cursor, limit })
            }
            _ => Err(InvalidQuery::all(self.problems)),
        }
    }

    /// The question for everybody's totals that they ask.
    pub(crate) fn into_aggregates(mut self) -> Result<AggregatesRequest, InvalidQuery> {
        let granularity = self.required("granularity", Granularity::ACCEPTED);
        let from = self.optional("from", DATE);
        let to = self.optional("to", DATE);
        let event_type = self.optional("type", EventType::ACCEPTED);
        match granularity {
            Some(granularity) if self.problems.is_empty() => {
                Ok(AggregatesRequest { granularity, from, to, event_type })
            }
            _ => Err(InvalidQuery::all(self.problems)),
        }
    }

    fn required<T: FromStr>(&mut self, name: &'static str, accepted: &str) -> Option<T> {
        if self.given.iter().all(|(given, _)| *given != name) {
            self.refuse(name, "nothing", accepted);
        }
        self.optional(name, accepted)
    }

    fn optional<T: FromStr>(&mut self, name: &'static str, accepted: &str) -> Option<T> {
        let at = self.given.iter().position(|(given, _)| *given == name)?;
        let (_, text) = self.given.swap_remove(at);
        let value = text.parse().ok();
        if value.is_none() {
            self.refuse(name, &text, accepted);
        }
        value
    }
}

/// The size of a page, in digits alone.
struct Limit(u32);

impl FromStr for Limit {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let limit = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        limit.filter(|limit| (1..=MAX_LIMIT).contains(limit)).map(Self).ok_or(())
    }
}
