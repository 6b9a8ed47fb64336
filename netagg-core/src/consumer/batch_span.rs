//! The span of a batch, with links to the traces of its records.

use std::collections::HashSet;

use tracing::{Span, field};

use crate::TraceContext;
use crate::ports::TracePropagator;
use crate::record::Record;

/// The maximum number of links of a batch. More links would cost memory in the exporter and help no reader.
const MAX_LINKS: usize = 32;

/// A span of the processing of `records`. It gets links only if its trace is recorded, so an unrecorded batch reads no headers.
pub(super) fn batch_span(records: &[Record], propagator: Option<&dyn TracePropagator>) -> Span {
    let topic = records.first().map_or("", |record| &*record.partition.topic);
    let span = tracing::info_span!(
        "process",
        otel.name = format!("process {topic}"),
        otel.kind = "consumer",
        otel.status_code = field::Empty,
        messaging.system = "kafka",
        messaging.operation.name = "process",
        messaging.operation.type = "process",
        messaging.destination.name = topic,
        messaging.batch.message_count = records.len() as i64,
    );
    if let Some(propagator) = propagator
        && propagator.context(&span).is_some_and(|context| context.is_sampled())
    {
        let mut seen = HashSet::new();
        let sampled = records.iter().filter_map(TraceContext::of_record).filter(TraceContext::is_sampled);
        // The records of one publish call share a context.
        for context in sampled.filter(|context| seen.insert(context.ids())).take(MAX_LINKS) {
            propagator.add_link(&span, &context);
        }
    }
    span
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::record::PartitionId;

    #[derive(Debug, Default)]
    struct Links {
        is_sampled: bool,
        links: Mutex<Vec<TraceContext>>,
    }

    impl TracePropagator for Links {
        fn set_parent(&self, _: &Span, _: &TraceContext) {}

        fn add_link(&self, _: &Span, link: &TraceContext) {
            self.links.lock().expect("no panic").push(link.clone());
        }

        fn context(&self, _: &Span) -> Option<TraceContext> {
            TraceContext::new(1, 1, self.is_sampled)
        }
    }

    fn links(is_sampled: bool, contexts: impl Iterator<Item = TraceContext>) -> Vec<TraceContext> {
        let record = |context: TraceContext| {
            Record::new(PartitionId::new("events", 0), 0, "{}").with_headers(context.to_headers())
        };
        let propagator = Links { is_sampled, ..Links::default() };
        batch_span(&contexts.map(record).collect::<Vec<_>>(), Some(&propagator));
        propagator.links.into_inner().expect("no panic")
    }

    #[test]
    fn a_recorded_batch_links_each_recorded_trace_of_its_records_once_and_at_most_32() {
        let context = |id: u128, is_sampled| TraceContext::new(id, 7, is_sampled).expect("valid ids");
        let contexts = || [context(5, true), context(5, true), context(6, false), context(7, true)].into_iter();
        assert_eq!(links(true, contexts()), [context(5, true), context(7, true)]);
        assert_eq!(links(false, contexts()), []);
        assert_eq!(links(true, (1..100).map(|id| context(id, true))).len(), MAX_LINKS);
    }
}
