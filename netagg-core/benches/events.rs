//! Measures the cost of one event: decoding, the event key, the content hash, and encoding.
//!
//! `cargo bench -p netagg-core --bench events`
#![allow(clippy::expect_used, reason = "a benchmark that cannot continue panics")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use netagg_core::{Event, IdentifiedEvent};

/// The example of the contract, with more fields in `meta`: 295 bytes.
const EVENT: &[u8] = br#"{"event_id":"550e8400-e29b-41d4-a716-446655440000","source_id":"provider-1","user_id":"123456789","type":"CALL_OUT","started_at":"2025-10-20T12:34:56Z","ended_at":"2025-10-20T12:56:00Z","duration_sec":127,"bytes_up":0,"bytes_down":0,"meta":{"cell":"A1","imei":"356938035643809","network":"LTE"}}"#;

fn events(criterion: &mut Criterion) {
    let event = Event::decode(EVENT).expect("valid");
    let mut group = criterion.benchmark_group("event");
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode", |bencher| bencher.iter(|| Event::decode(black_box(EVENT))));
    let without_meta = Event::new(netagg_core::EventFields { meta: None, ..event.clone().into_fields() });
    let without_meta = without_meta.expect("valid").encode();
    group.bench_function("decode without meta", |bencher| bencher.iter(|| Event::decode(black_box(&without_meta))));
    group.bench_function("key", |bencher| bencher.iter(|| black_box(&event).key()));
    group.bench_function("content hash", |bencher| bencher.iter(|| black_box(&event).content_hash()));
    group.bench_function("decode and identify", |bencher| {
        bencher.iter(|| Event::decode(black_box(EVENT)).map(IdentifiedEvent::from));
    });
    group.bench_function("encode", |bencher| bencher.iter(|| black_box(&event).encode()));
    group.finish();
}

criterion_group!(benches, events);
criterion_main!(benches);
