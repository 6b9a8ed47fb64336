//! `netagg-pg` against a real PostgreSQL server.

mod abandoned;
mod audit;
mod batches;
mod completeness;
mod conformance;
mod consumer_groups;
mod distribution;
mod hook;
mod identity;
mod limits;
mod log;
mod meta;
mod migrations;
mod mode;
mod outages;
mod partitions;
mod pool;
mod progress;
mod queries;
mod repair;
mod retention;

use std::time::Duration;

use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Batch, Contribution, Event, Identified, IdentifiedEvent, ProcessingMode, Span};
use netagg_pg::{PgAddress, PgConfig, Postgres};
use netagg_testkit::postgres::{Database, database};
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

/// A database that only one test uses. It has the schema, except after [`Fresh::empty`].
struct Fresh {
    postgres: Postgres,
    database: Database,
}

impl Fresh {
    async fn empty() -> Self {
        let database = database().await;
        Self { postgres: connect(database.url()), database }
    }

    async fn migrated() -> Self {
        let fresh = Self::empty().await;
        fresh.postgres.migrations().up().await.unwrap();
        fresh
    }

    /// A database with the schema, in the combined mode.
    async fn combined() -> Self {
        let fresh = Self::migrated().await;
        fresh.postgres.agree_on_mode(ProcessingMode::Combined, &CancellationToken::new()).await.unwrap().unwrap();
        fresh
    }

    /// A direct connection, to check the data that the adapters wrote.
    async fn connection(&self) -> PgConnection {
        PgConnection::connect(self.database.url()).await.unwrap()
    }

    /// The single value that `query` returns.
    async fn value<T>(&self, query: &'static str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(query).fetch_one(&mut self.connection().await).await.unwrap()
    }

    async fn execute(&self, statements: &'static str) {
        sqlx::raw_sql(statements).execute(&mut self.connection().await).await.unwrap();
    }
}

/// How long a test may wait for a connection or a lock on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn connect(url: &str) -> Postgres {
    connect_with(url, |_| {})
}

fn connect_with(url: &str, change: impl FnOnce(&mut PgConfig)) -> Postgres {
    Postgres::new(config(url.parse().unwrap(), |config| {
        config.acquire_timeout = PATIENCE;
        config.statement_timeout = PATIENCE;
        config.lock_timeout = PATIENCE;
        config.call_timeout = 2 * PATIENCE;
        change(config);
    }))
}

/// The default configuration with a change.
fn config(address: PgAddress, change: impl FnOnce(&mut PgConfig)) -> PgConfig {
    let mut config = PgConfig::new(address);
    change(&mut config);
    config
}

fn at(id: u128, started_at: &str) -> Event {
    event(EventTemplate { id, started_at, ..EventTemplate::default() })
}

fn events(events: impl IntoIterator<Item = Event>) -> Batch<IdentifiedEvent> {
    events_of(events, Vec::new())
}

fn events_of(events: impl IntoIterator<Item = Event>, spans: Vec<Span>) -> Batch<IdentifiedEvent> {
    batch_of(events.into_iter().map(IdentifiedEvent::from), spans)
}

fn contributions(events: impl IntoIterator<Item = Event>) -> Batch<Contribution> {
    contributions_of(events, Vec::new())
}

fn contributions_of(events: impl IntoIterator<Item = Event>, spans: Vec<Span>) -> Batch<Contribution> {
    batch_of(events.into_iter().map(|event| Contribution::of(&event)), spans)
}

/// A batch of `items`, at consecutive offsets from the start of the first span.
fn batch_of<T: Identified>(items: impl IntoIterator<Item = T>, spans: Vec<Span>) -> Batch<T> {
    let Some(first) = spans.first().cloned() else { return Batch::new(items.into_iter().collect()) };
    let mut batch = Batch::builder(spans);
    for (offset, item) in (first.from..).zip(items) {
        batch.push(&first.partition, offset, item);
    }
    batch.build()
}
