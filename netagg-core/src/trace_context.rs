//! The [W3C Trace Context](https://www.w3.org/TR/trace-context/) of a span, as requests and records carry it.

use std::fmt;
use std::str::FromStr;

use crate::record::{Header, Record};

/// A longer `tracestate` is dropped, as the standard allows.
const MAX_STATE_BYTES: usize = 512;

/// The bit of the flags that says that the trace is recorded.
const SAMPLED: u8 = 1;

/// The place of a span in a distributed trace: the text of the headers `traceparent` and `tracestate`.
///
/// ```
/// use netagg_core::TraceContext;
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context: TraceContext = text.parse()?;
/// assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
/// assert!(context.is_sampled());
/// assert_eq!(context.to_string(), text);
/// # Ok::<(), netagg_core::InvalidTraceParent>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
    state: Option<Box<str>>,
}

/// The text is not a valid `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "traceparent: accepted: <version>-<32 hexadecimal digits>-<16 hexadecimal digits>-<flags>, without ids of only zeros"
)]
#[non_exhaustive]
pub struct InvalidTraceParent;

impl TraceContext {
    /// The name of the header with the ids.
    pub const TRACEPARENT: &str = "traceparent";
    /// The name of the header with data of tracing systems.
    pub const TRACESTATE: &str = "tracestate";

    /// The context with these ids. `None` if one of them is zero, which the standard forbids.
    pub fn new(trace_id: u128, span_id: u64, is_sampled: bool) -> Option<Self> {
        let flags = if is_sampled { SAMPLED } else { 0 };
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, flags, state: None })
    }

    /// Adds the text of `tracestate`. An empty text, and a text of more than 512 bytes, is dropped.
    #[must_use]
    pub fn with_state(self, state: &str) -> Self {
        let is_kept = (1..=MAX_STATE_BYTES).contains(&state.len());
        Self { state: is_kept.then(|| state.into()), ..self }
    }

    /// The context in the headers of `record`. `None` if the record has no valid `traceparent`.
    pub fn of_record(record: &Record) -> Option<Self> {
        let text = |name: &str| {
            let header = record.headers.iter().find(|header| header.name == name)?;
            std::str::from_utf8(header.value.as_ref()?).ok()
        };
        let context: Self = text(Self::TRACEPARENT)?.parse().ok()?;
        Some(context.with_state(text(Self::TRACESTATE).unwrap_or_default()))
    }

    /// The headers of a record for this context.
    pub fn to_headers(&self) -> Vec<Header> {
        let parent = Header::new(Self::TRACEPARENT, self.to_string());
        let state = self.state.as_ref().map(|state| Header::new(Self::TRACESTATE, state.to_string()));
        std::iter::once(parent).chain(state).collect()
    }

    /// The id of the trace, as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// The ids of the trace and of the span, as numbers.
    pub fn ids(&self) -> (u128, u64) {
        (self.trace_id, self.span_id)
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The text of `tracestate`.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

/// The text of `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = InvalidTraceParent;

    /// Reads the text of `traceparent`. Of a later version than 00, the fields of version 00 are read.
    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let is_hex = |part: &&str| {
                part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            };
            parts.next().filter(is_hex).and_then(|part| u128::from_str_radix(part, 16).ok()).ok_or(InvalidTraceParent)
        };
        let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let is_version_known = version < 0xff && (version > 0 || parts.next().is_none());
        let context = Self::new(trace_id, span_id as u64, flags as u8 & SAMPLED != 0);
        context.filter(|_| is_version_known).ok_or(InvalidTraceParent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::PartitionId;

    const IDS: &str = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";

    #[test]
    fn only_a_valid_traceparent_is_read() {
        for valid in [format!("00-{IDS}-00"), format!("00-{IDS}-01"), format!("cc-{IDS}-09-more")] {
            let context: TraceContext = valid.parse().expect(&valid);
            assert_eq!(context.is_sampled(), !valid.contains("-00f067aa0ba902b7-00"), "{valid}");
            assert_eq!(context.to_string()[3..52], *IDS);
        }
        let zeros = "0".repeat(32);
        for invalid in [
            String::new(),
            format!("00-{IDS}"),
            format!("00-{IDS}-01-more"),
            format!("ff-{IDS}-01"),
            format!("00-{}-01", IDS.to_uppercase()),
            format!("00-{zeros}-00f067aa0ba902b7-01"),
            format!("00-{}-0000000000000000-01", &IDS[..32]),
            format!("00-+{}-01", &IDS[1..]),
        ] {
            assert_eq!(invalid.parse::<TraceContext>(), Err(InvalidTraceParent), "{invalid}");
        }
    }

    #[test]
    fn a_record_carries_a_context_in_its_headers() {
        let context = TraceContext::new(1, 2, true).expect("valid ids").with_state("vendor=x");
        let record = Record::new(PartitionId::new("events", 0), 0, "{}").with_headers(context.to_headers());
        assert_eq!(TraceContext::of_record(&record), Some(context));
        assert_eq!(TraceContext::of_record(&Record { headers: Vec::new(), ..record }), None);
    }
}
