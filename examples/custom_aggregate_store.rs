//! An aggregate store of your own: a journal of what each event adds, summed when somebody asks. `testkit` judges it
//! before it goes to work in the pipeline; in an adapter's own crate that is a test.
//!
//! `cargo run -p netagg-examples --example custom_aggregate_store`

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use netagg_core::memory::MemoryLog;
use netagg_core::ports::{AggregateStore, Clock, EventPublisher, SystemClock, TotalsQuery};
use netagg_core::{
    AggregateRow, Aggregator, Batch, BatchOutcome, Contribution, Day, Error, EventKey, EventType, Granularity,
    OutgoingRecord, Totals, testkit,
};
use tokio_util::sync::CancellationToken;

/// Journal and ledger in one: an identity that has an entry is known.
#[derive(Debug, Default)]
struct Journal(Mutex<BTreeMap<EventKey, Contribution>>);

#[async_trait]
impl AggregateStore for Journal {
    // Nothing is awaited under the lock, so nobody sees half a batch; and what is known adds nothing, so that a
    // repeated call is harmless. (One that outlives its process would note `batch.spans()` as done, too.)
    async fn add(&self, batch: &Batch<Contribution>) -> Result<BatchOutcome, Error> {
        let mut journal = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = batch.judge(|key| journal.get(key).map(|known| known.identity));
        for item in batch.items() {
            journal.entry(item.identity.key).or_insert(*item);
        }
        Ok(outcome)
    }

    async fn totals(&self, query: &TotalsQuery) -> Result<Vec<AggregateRow>, Error> {
        let date = |day: Day| match query.granularity {
            Granularity::Day => day,
            Granularity::Month => day.month().first_day(),
        };
        let dates = date(query.from)..=date(query.to);
        let mut sums = BTreeMap::<(Day, EventType), Totals>::new();
        for item in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let (date, event_type) = (date(item.identity.day), item.event_type);
            if dates.contains(&date) && query.event_type.is_none_or(|only| only == event_type) {
                *sums.entry((date, event_type)).or_default() += item;
            }
        }
        let rows = sums.into_iter().map(|((date, event_type), totals)| AggregateRow { date, event_type, totals });
        Ok(rows.collect())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    testkit::aggregate_store(async || Arc::new(Journal::default())).await;
    println!("the journal keeps every promise of the port");
    let log = MemoryLog::new("events.telecom", 4);
    let now = SystemClock.now();
    for id in (0..500_u64).chain(0..100) {
        let json = format!(
            r#"{{"event_id":"00000000-0000-4000-8000-{id:012}","source_id":"example","user_id":"user-{}","type":"DATA",
            "started_at":"{now}","bytes_up":{id},"bytes_down":1000000}}"#,
            id % 20
        );
        log.publish(vec![OutgoingRecord { value: Some(json.into()), ..OutgoingRecord::default() }]).await?;
    }
    log.close();

    let journal = Arc::new(Journal::default());
    let aggregator = Aggregator::new(journal.clone());
    aggregator.run(&mut log.source("aggregator-group"), CancellationToken::new()).await?;
    let stats = aggregator.stats().snapshot();
    println!("{} records: {} counted, {} known", stats.consumed, stats.new, stats.duplicates);
    let today = now.day();
    let query = TotalsQuery { granularity: Granularity::Month, from: today, to: today, event_type: None };
    for AggregateRow { date, event_type, totals } in journal.totals(&query).await? {
        println!("{date} {event_type}: {} events, {} bytes up", totals.count_events, totals.sum_bytes_up);
    }
    Ok(())
}
