//! Parses the parameters of both transports from text into requests. Only this module decides which values are accepted.

use std::str::FromStr;

use netagg_core::usage::{
    AggregatesRequest, CURSOR_ACCEPTED, DetailRequest, InvalidParameter, InvalidQuery, MAX_LIMIT, PreparedAggregates,
    PreparedDetail, PreparedUserAggregates, UsageService, UserAggregatesRequest, is_cursor,
};
use netagg_core::{EventType, Granularity, UserId, Zone};

/// The maximum number of wrong parameters that an error names.
const MAX_PROBLEMS: usize = 16;

const TIME: &str = "an RFC 3339 time such as 2025-10-20T12:34:56Z";
const TIME_IN_URL: &str = "an RFC 3339 time such as 2025-10-20T12:34:56Z (in a URL, the + of an offset is written %2B)";
pub(crate) const DATE: &str = "a date such as 2025-10-20";

/// The parameters of a request, each at most once, and the problems found so far.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    given: Vec<(&'static str, String)>,
    problems: Vec<InvalidParameter>,
    is_in_url: bool,
}

impl Parameters {
    /// No parameters yet, for a request by URL. The default is for a gRPC message.
    pub(crate) fn of_url() -> Self {
        Self { is_in_url: true, ..Self::default() }
    }

    /// Adds the parameter `name` with the value `text`. The first value counts, and a second value is a problem.
    pub(crate) fn add(&mut self, name: &'static str, text: String) {
        match self.given.iter().find(|(given, _)| *given == name) {
            Some((_, first)) => self.add_problem(name, &format!("{first}, then {text}"), "one value"),
            None => self.given.push((name, text)),
        }
    }

    /// Adds a problem with `name`, unless `name` has a problem already.
    pub(crate) fn add_problem(&mut self, name: &str, found: &str, accepted: &str) {
        if self.problems.len() < MAX_PROBLEMS && self.problems.iter().all(|problem| problem.name != name) {
            self.problems.push(InvalidParameter::new(name, found, accepted));
        }
    }

    /// Returns the request for a user's events, prepared by `service`.
    pub(crate) fn into_detail(mut self, service: &UsageService) -> Result<PreparedDetail, InvalidQuery> {
        let user_id = self.user_id();
        let time = if self.is_in_url { TIME_IN_URL } else { TIME };
        let from = self.optional("from", time);
        let to = self.optional("to", time);
        let cursor = self.optional("cursor", CURSOR_ACCEPTED);
        let limit = self.optional("limit", &format!("an integer from 1 to {MAX_LIMIT}"));
        let event_type = self.optional("type", EventType::ACCEPTED);
        let request = || -> Result<_, Wrong> {
            // A wrong type, limit or cursor is left out here, because the check of the range does not need it. So the error
            // can also name a wrong range. A cursor belongs to one type, so it is also left out if the type is wrong.
            let cursor = if event_type.is_ok() { cursor.unwrap_or_default() } else { None };
            Ok(DetailRequest {
                user_id: user_id?,
                from: from?,
                to: to?,
                event_type: event_type.unwrap_or_default(),
                cursor: cursor.map(|CursorText(text)| text),
                limit: limit.unwrap_or_default().map(|Limit(limit)| limit),
            })
        };
        self.prepare(request(), |request| service.prepare_detail(request))
    }

    /// Returns the request for the totals of all users, prepared by `service`.
    pub(crate) fn into_aggregates(mut self, service: &UsageService) -> Result<PreparedAggregates, InvalidQuery> {
        let request = self.totals();
        self.prepare(request, |request| service.prepare_aggregates(request))
    }

    /// Returns the request for a user's totals, prepared by `service`.
    pub(crate) fn into_user_aggregates(
        mut self,
        service: &UsageService,
    ) -> Result<PreparedUserAggregates, InvalidQuery> {
        let user_id = self.user_id();
        let totals = self.totals();
        let request = || Ok(UserAggregatesRequest { user_id: user_id?, totals: totals? });
        self.prepare(request(), |request| service.prepare_user_aggregates(request))
    }

    fn user_id(&mut self) -> Result<UserId, Wrong> {
        self.required("user_id", "1 to 64 characters, none of them NUL")
    }

    fn totals(&mut self) -> Result<AggregatesRequest, Wrong> {
        let granularity = self.required("granularity", Granularity::ACCEPTED);
        let from = self.optional("from", DATE);
        let to = self.optional("to", DATE);
        let event_type = self.optional("type", EventType::ACCEPTED);
        let zone = self.optional("tz", Zone::ACCEPTED);
        let (granularity, from, to) = (granularity?, from?, to?);
        // A wrong type is left out here, because the check of the range does not need it. So the error can also name a wrong
        // range. If both dates are given, the check does not need the zone either.
        let zone = if from.is_some() && to.is_some() { zone.unwrap_or_default() } else { zone? };
        let (event_type, zone) = (event_type.unwrap_or_default(), zone.unwrap_or(Zone::UTC));
        Ok(AggregatesRequest { granularity, from, to, event_type, zone })
    }

    /// Returns the prepared `request`. If a parameter is wrong, or the parameters contradict each other, the error names all
    /// problems.
    fn prepare<T, P>(
        mut self,
        request: Result<T, Wrong>,
        prepare: impl FnOnce(T) -> Result<P, InvalidQuery>,
    ) -> Result<P, InvalidQuery> {
        match request.map(prepare) {
            Ok(Ok(prepared)) if self.problems.is_empty() => return Ok(prepared),
            Ok(Err(query)) => {
                for problem in query.problems {
                    self.add_problem(&problem.name, &problem.found, &problem.accepted);
                }
            }
            _ => {}
        }
        Err(InvalidQuery::all(self.problems))
    }

    fn required<T: FromStr>(&mut self, name: &'static str, accepted: &str) -> Result<T, Wrong> {
        if self.given.iter().all(|(given, _)| *given != name) {
            self.add_problem(name, "nothing", accepted);
        }
        self.optional(name, accepted)?.ok_or(Wrong)
    }

    /// Takes the parameter `name`. A wrong value is a problem with the accepted values.
    pub(crate) fn optional<T: FromStr>(&mut self, name: &'static str, accepted: &str) -> Result<Option<T>, Wrong> {
        let given = self.given.iter().position(|(given, _)| *given == name);
        let text = given.map(|at| self.given.swap_remove(at).1);
        let value = text.as_deref().and_then(|text| text.parse().ok());
        if let (Some(text), None) = (&text, &value) {
            self.add_problem(name, text, accepted);
        }
        if self.problems.iter().any(|problem| problem.name == name) { Err(Wrong) } else { Ok(value) }
    }
}

/// The error for a parameter that is wrong. The problem itself is in [`Parameters`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wrong;

/// A text that has the form of a cursor.
struct CursorText(String);

impl FromStr for CursorText {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        is_cursor(text).then(|| Self(text.to_owned())).ok_or(Wrong)
    }
}

/// The size of a page, written only with digits.
struct Limit(u32);

impl FromStr for Limit {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let limit = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        limit.filter(|limit| (1..=MAX_LIMIT).contains(limit)).map(Self).ok_or(Wrong)
    }
}
