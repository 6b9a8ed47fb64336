//! Structured logs on stderr. A line that cannot be written is lost and counted, without any other effect.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tracing::Metadata;
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::time::ChronoUtc;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::env::Variables;
use super::output;
use super::trace_id_format::TraceIdFormat;

/// The number of lost lines. It counts from the start of the process, when the metrics do not exist yet.
static LOST: AtomicU64 = AtomicU64::new(0);

/// How many lines of the log could not be written since the start of the process.
pub fn lost_lines() -> u64 {
    LOST.load(Relaxed)
}

/// Writes whole lines to stderr, and never fails. tracing would report a failure to the same stream, and panic.
#[derive(Clone, Copy, Debug)]
struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if output::write_line(line).is_err() {
            LOST.fetch_add(1, Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The log settings that apply if the variables are not set.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct LogDefaults {
    /// The level.
    pub level: &'static str,
    /// The formats; the first format is the default.
    pub formats: [&'static str; 2],
}

impl LogDefaults {
    /// The defaults of a service: level `info`, in JSON for machines.
    pub const SERVICE: Self = Self { level: "info", formats: ["json", "text"] };
    /// The defaults of a command: level `warn`, in text for people.
    pub const COMMAND: Self = Self { level: "warn", formats: ["text", "json"] };
}

impl LogDefaults {
    /// Declares the variables for the help, without using their values.
    pub fn describe(self, variables: &mut Variables) {
        LogConfig::read(variables, self);
    }
}

/// The level and the format of the log.
#[derive(Clone, Debug)]
pub(crate) struct LogConfig {
    filter: String,
    is_json: bool,
}

impl LogConfig {
    /// Reads `LOG_LEVEL` and `LOG_FORMAT`.
    pub(crate) fn read(variables: &mut Variables, defaults: LogDefaults) -> Self {
        variables.group("Logging");
        const LEVELS: &str = "error, warn, info, debug, trace, or a filter such as info,netagg_pg=debug";
        // `EnvFilter` would take a word that is no level for the name of a target.
        let is_level = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
        let is_filter =
            |text: &str| (text.split(',').all(is_level) && EnvFilter::try_new(text).is_ok()).then(|| text.to_owned());
        let filter =
            variables.parse("LOG_LEVEL", defaults.level, "lowest level of the log lines on stderr", LEVELS, is_filter);
        let is_json = variables.choice("LOG_FORMAT", &defaults.formats, "format of the log lines") == "json";
        Self { filter: filter.unwrap_or_else(|| defaults.level.to_owned()), is_json }
    }

    /// Sends the logs of the process to stderr, and its spans to `traces`. With `traces`, each line inside of a trace has the id
    /// of the trace. Only the first call has an effect.
    pub(crate) fn start(&self, traces: Option<TraceLayer>) {
        // The log lines of the drivers are mostly about reconnecting, and netagg's adapters log the important events. Later
        // directives win, so the filter of an operator can still enable these lines.
        let filter = EnvFilter::new(format!("librdkafka=off,rdkafka=off,fred=off,sqlx=off,{}", self.filter));
        // A span costs nothing in the log, because no line shows it.
        let is_line: fn(&Metadata<'_>) -> bool = |metadata| metadata.is_event();
        let filter = filter.and(filter_fn(is_line).with_max_level_hint(LevelFilter::TRACE));
        let (traces, trace_id) = match traces {
            Some(TraceLayer { layer, trace_id }) => (Some(layer), trace_id),
            None => (None, (|| None) as fn() -> Option<String>),
        };
        let lines = fmt::layer()
            .with_writer(|| LogWriter)
            .log_internal_errors(false)
            .with_ansi(io::stderr().is_terminal())
            .with_timer(ChronoUtc::rfc_3339());
        let lines: Box<dyn Layer<_> + Send + Sync> = if self.is_json {
            Box::new(lines.json().flatten_event(true).map_event_format(|inner| TraceIdFormat { inner, trace_id }))
        } else {
            Box::new(lines.map_event_format(|inner| TraceIdFormat { inner, trace_id }))
        };
        let started = tracing_subscriber::registry().with(traces).with(lines.with_filter(filter)).try_init();
        drop(started);
    }
}

/// The part of the log that belongs to a tracing system.
pub(crate) struct TraceLayer {
    /// Receives the spans of the process.
    pub(crate) layer: Box<dyn Layer<Registry> + Send + Sync>,
    /// The id of the current trace. `None` outside of a trace.
    pub(crate) trace_id: fn() -> Option<String>,
}
