#![doc = include_str!("../README.md")]

mod aggregate;
mod aggregator;
mod batch;
mod completeness;
mod consumer;
mod consumer_groups;
#[doc(hidden)]
pub mod crash;
mod dead_letter;
mod duration;
mod error;
mod event;
mod granularity;
mod ingestor;
mod json_decoder;
#[cfg(feature = "load")]
pub mod load;
pub mod memory;
mod metrics;
#[cfg(feature = "ndjson")]
pub mod ndjson;
#[cfg(feature = "opentelemetry")]
mod otel_propagator;
pub mod ports;
mod processing_mode;
mod readiness;
mod record;
mod repair_loop;
mod retry_policy;
mod stream_source;
#[cfg(feature = "testkit")]
pub mod testkit;
mod time;
mod trace_context;
mod traced_publisher;
pub mod usage;
mod validator;
mod zone;

// The crates whose types are in this crate's public interface.
#[doc(no_inline)]
pub use {async_trait, bytes, chrono, tokio_util, uuid};
#[cfg(feature = "opentelemetry")]
#[doc(no_inline)]
pub use {opentelemetry, tracing_opentelemetry};

pub use aggregate::{AggregateRow, Contribution, Totals, sum_by_day};
pub use aggregator::Aggregator;
pub use batch::{Batch, BatchBuilder, BatchOutcome, Conflict, Identified, SpanCounts};
pub use completeness::{CompletenessTracker, TrackedConsumer};
pub use consumer::{ConsumerConfig, ConsumerStats, EventConsumer, StatsSnapshot};
pub use consumer_groups::{ConsumerGroups, NotDrained};
pub use dead_letter::DeadLetter;
pub use duration::{HumanDuration, InvalidDuration};
pub use error::{BoxError, Error, causes};
pub use event::{
    BoundedText, ContentHash, Event, EventFields, EventKey, EventLimits, EventType, IdentifiedEvent, Identity,
    InvalidEvent, InvalidKind, InvalidText, MAX_BYTES, MAX_DEPTH, MAX_DURATION_SEC, Meta, SourceId, UnknownEventType,
    UserId,
};
pub use granularity::{Granularity, UnknownGranularity};
pub use ingestor::Ingestor;
pub use json_decoder::JsonDecoder;
pub use metrics::{BATCH_RECORDS_BUCKETS, BATCH_SECONDS_BUCKETS, describe_metrics};
#[cfg(feature = "opentelemetry")]
pub use otel_propagator::OtelPropagator;
pub use processing_mode::{ProcessingMode, UnknownMode};
pub use readiness::{Criticality, Readiness, ReadinessReport};
pub use record::{Header, OutgoingRecord, PartitionId, Position, Record, RecordPosition, RecordTimestamp, Span};
pub use retry_policy::RetryPolicy;
pub use stream_source::StreamSource;
pub use time::{Day, Month, ParseTimeError, Timestamp};
pub use trace_context::{InvalidTraceParent, TraceContext};
pub use traced_publisher::TracedPublisher;
pub use zone::{UnknownZone, Zone};
