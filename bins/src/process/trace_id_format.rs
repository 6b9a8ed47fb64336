//! The id of the trace in log lines.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Formats log lines like `E`, and adds the id of the current trace: in JSON as the first field, in text at the end.
#[derive(Debug)]
pub(super) struct TraceIdFormat<E> {
    pub(super) inner: E,
    /// The id of the current trace. `None` outside of a trace.
    pub(super) trace_id: fn() -> Option<String>,
}

impl<S, N, E> FormatEvent<S, N> for TraceIdFormat<E>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    E: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(trace_id) = (self.trace_id)() else { return self.inner.format_event(context, writer, event) };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{') {
            Some(fields) => write!(writer, "{{\"trace_id\":\"{trace_id}\",{fields}"),
            None => writeln!(writer, "{} trace_id={trace_id}", line.trim_end()),
        }
    }
}
