//! Measures the rows per second of `PgEventStore::store`, `PgAggregateStore::add` and `PgCombinedStore::store`, with fsync on:
//!
//! ```sh
//! cargo bench -p netagg-testkit --bench write
//! ```
//!
//! Each figure is the median of `RUNS` runs (default 3). A run writes `ROWS` events (default 400000) of three months in batches
//! of `BATCH` events (default 5000), to an empty database that is dropped afterwards. In the cases with duplicates, this share
//! of each batch repeats events of earlier batches. `MAX_INSERT_ROWS` is the setting of `PgConfig`. `DATABASE_URL` names a server;
//! without it, the benchmark starts a server. An argument selects the cases whose name contains it.
//!
//! The cases `copy` are the ceiling: the same rows in batches of the same size, which PostgreSQL has encoded before. Each transaction has
//! only `BEGIN`, one `COPY` for each table, and `COMMIT`. `copy events` writes identities and events, `copy keys` the ledger alone.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a program for people")]

use std::sync::Arc;
use std::time::Instant;

use futures::TryStreamExt;
use netagg_core::ports::{AggregateStore, EventStore};
use netagg_core::{
    Batch, Contribution, Event, EventFields, EventType, Identified, IdentifiedEvent, Meta, PartitionId, ProcessingMode,
    SourceId, Span, Timestamp, UserId,
};
use netagg_pg::{PgAggregateStore, PgCombinedStore, PgConfig, PgEventStore, Postgres};
use netagg_testkit::postgres;
use sqlx::postgres::PgPoolCopyExt;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[tokio::main]
async fn main() {
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let (server, _started) = match std::env::var("DATABASE_URL") {
        Ok(url) => (Server { url }, None),
        Err(_) => {
            let started = postgres::Server::start().await;
            (Server { url: started.url() }, Some(started))
        }
    };
    let (rows, size, runs) = (variable("ROWS", 400_000), variable("BATCH", 5_000), variable("RUNS", 3));
    println!("fsync {}; {rows} rows in batches of {size}, median of {runs}", server.setting("fsync").await);
    let report = |name: &str, mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        let (middle, last) = (rates.len() / 2, rates.len() - 1);
        println!("{name:<44} {:>8.0} rows/s   ({:.0} to {:.0})", rates[middle], rates[0], rates[last]);
    };
    let ceilings = [1, 2].map(|connections| {
        [Ceiling::EVENTS, Ceiling::KEYS].map(|c| (format!("{} connections={connections}", c.name), connections, c))
    });
    let ceilings: Vec<_> = ceilings.into_iter().flatten().filter(|(name, ..)| name.contains(&filter)).collect();
    if !ceilings.is_empty() {
        let stored = server.stored(&Batches::generate(rows, size, 0)).await;
        for (name, connections, ceiling) in ceilings {
            let copies = stored.encode(&ceiling, size).await;
            let mut rates = Vec::new();
            for _ in 0..runs {
                rates.push(rows as f64 / server.copy(connections, &copies).await);
            }
            report(&name, rates);
        }
        stored.drop(&server).await;
    }
    for duplicates in [0, 5, 20] {
        let batches = Batches::generate(rows, size, duplicates);
        for connections in [1, 2] {
            for target in [Target::Events, Target::Aggregates, Target::Combined] {
                let name = format!("{} connections={connections} duplicates={duplicates}%", target.name());
                if !name.contains(&filter) {
                    continue;
                }
                let mut rates = Vec::new();
                for _ in 0..runs {
                    rates.push(server.measure(target, connections, &batches, rows).await);
                }
                report(&name, rates);
            }
        }
    }
}

fn variable(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[derive(Clone, Copy)]
enum Target {
    Events,
    Aggregates,
    Combined,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Events => "store",
            Self::Aggregates => "add  ",
            Self::Combined => "both ",
        }
    }
}

struct Batches {
    events: Vec<Arc<Batch<IdentifiedEvent>>>,
    contributions: Vec<Arc<Batch<Contribution>>>,
}

/// A batch of the items. The spans take turns in providing the next item.
fn batch<T: Identified>(items: impl Iterator<Item = T>, spans: Vec<Span>) -> Batch<T> {
    let mut batch = Batch::builder(spans.clone());
    for (number, item) in items.enumerate() {
        let span = &spans[number % spans.len()];
        batch.push(&span.partition, span.from + (number / spans.len()) as i64, item);
    }
    batch.build()
}

impl Batches {
    fn generate(rows: usize, size: usize, duplicates: usize) -> Self {
        let mut events: Vec<IdentifiedEvent> = Vec::with_capacity(rows);
        for number in 0..rows {
            let repeats = number >= size && number % 100 < duplicates;
            events.push(if repeats { events[number - size].clone() } else { event(number as u64).into() });
        }
        // As for a consumer of eight partitions, each batch has a range of offsets of every partition.
        let spans = |batch: usize| {
            let span = |number| Span {
                partition: PartitionId::new("events.telecom", number),
                from: (batch * size / 8) as i64,
                to: ((batch + 1) * size / 8) as i64,
                records: (size / 8) as u64,
                last_timestamp: Timestamp::from_millis(batch as i64),
            };
            (0..8).map(span).collect::<Vec<_>>()
        };
        let chunks = || events.chunks(size).enumerate().map(|(at, chunk)| (chunk, spans(at)));
        Self {
            events: chunks().map(|(chunk, spans)| Arc::new(batch(chunk.iter().cloned(), spans))).collect(),
            contributions: chunks()
                .map(|(chunk, spans)| Arc::new(batch(chunk.iter().map(|item| Contribution::of(&item.event)), spans)))
                .collect(),
        }
    }
}

/// The time of the first event, and the length of a month, in microseconds.
const FIRST: i64 = 1_760_000_000_000_000;
const MONTH: i64 = 31 * 86_400_000_000;

fn event(number: u64) -> Event {
    let started_at = FIRST + (number as i64 * 7_919_000_003) % (2 * MONTH);
    Event::new(EventFields {
        event_id: Uuid::new_v4(),
        source_id: SourceId::new("provider-1").unwrap(),
        user_id: UserId::new((number * 2_654_435_761 % 100_000).to_string()).unwrap(),
        event_type: EventType::ALL[(number % 5) as usize],
        started_at: Timestamp::from_micros(started_at).unwrap(),
        ended_at: Timestamp::from_micros(started_at + 60_000_000),
        duration_sec: Some(60),
        bytes_up: number,
        bytes_down: number * 3,
        meta: Some(Meta::parse(r#"{"cell":"A1","network":"4G"}"#).unwrap()),
    })
    .unwrap()
}

struct Server {
    url: String,
}

impl Server {
    async fn setting(&self, name: &str) -> String {
        let mut connection = PgConnection::connect(&self.url).await.expect("the server answers");
        sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut connection).await.unwrap()
    }

    async fn execute(&self, statement: &str) {
        let mut connection = PgConnection::connect(&self.url).await.expect("the server answers");
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut connection)
            .await
            .expect("a role that may create databases");
    }

    /// An empty database.
    async fn database(&self) -> Database {
        let name = format!("bench_{}", Uuid::new_v4().simple());
        self.execute(&format!("CREATE DATABASE {name}")).await;
        let (address, _) = self.url.rsplit_once('/').expect("a URL with a database");
        let mut config = PgConfig::new(format!("{address}/{name}").parse().expect("a URL"));
        config.max_insert_rows = variable("MAX_INSERT_ROWS", config.max_insert_rows);
        let postgres = Postgres::new(config);
        postgres.migrations().up().await.unwrap();
        Database { name, postgres }
    }

    /// A database in which `batches` are stored.
    async fn stored(&self, batches: &Batches) -> Database {
        let database = self.database().await;
        run_store(1, batches, Arc::new(PgEventStore::new(database.postgres.clone()))).await;
        database
    }

    /// The seconds that `connections` tasks need to write `copies` to an empty database.
    async fn copy(&self, connections: usize, copies: &Copies) -> f64 {
        let database = self.database().await;
        let months = [Timestamp::from_micros(FIRST), Timestamp::from_micros(FIRST + 2 * MONTH)].map(Option::unwrap);
        for month in months {
            database.postgres.partitions().ensure_ahead(month, 1).await.unwrap();
        }
        let (pool, statements) = (database.postgres.pool().clone(), copies.statements.clone());
        let took = run(connections, &copies.batches, move |tables| {
            let (pool, statements) = (pool.clone(), statements.clone());
            async move {
                let mut transaction = pool.begin().await.unwrap();
                for (statement, rows) in statements.iter().zip(tables.iter()) {
                    let mut copy = transaction.copy_in_raw(statement).await.unwrap();
                    copy.send(rows.as_slice()).await.unwrap();
                    copy.finish().await.unwrap();
                }
                transaction.commit().await.unwrap();
            }
        })
        .await;
        database.drop(self).await;
        took
    }

    async fn measure(&self, target: Target, connections: usize, batches: &Batches, rows: usize) -> f64 {
        let database = self.database().await;
        let postgres = database.postgres.clone();
        let took = match target {
            Target::Events => run_store(connections, batches, Arc::new(PgEventStore::new(postgres.clone()))).await,
            Target::Combined => {
                let stop = CancellationToken::new();
                postgres.agree_on_mode(ProcessingMode::Combined, &stop).await.unwrap().unwrap();
                run_store(connections, batches, Arc::new(PgCombinedStore::new(postgres.clone()))).await
            }
            Target::Aggregates => {
                let store = Arc::new(PgAggregateStore::new(postgres.clone()));
                run(connections, &batches.contributions, move |batch| {
                    let store = Arc::clone(&store);
                    async move { drop(store.add(&batch).await.unwrap()) }
                })
                .await
            }
        };
        database.drop(self).await;
        rows as f64 / took
    }
}

/// A database of one run.
struct Database {
    name: String,
    postgres: Postgres,
}

impl Database {
    /// The rows of each batch, in the form that `COPY` reads. Keys are sorted within a batch, as the stores sort them.
    async fn encode(&self, ceiling: &Ceiling, size: usize) -> Copies {
        let pool = self.postgres.pool();
        let mut batches: Vec<Vec<Vec<u8>>> = Vec::new();
        for Table { name, source, columns, order } in ceiling.tables {
            let number = format!("(row_number() OVER (ORDER BY {order}) - 1) / {size}");
            let script = format!(
                "DROP TABLE IF EXISTS numbered; \
                 CREATE TABLE numbered AS SELECT {number} AS batch, {columns} FROM {source}; \
                 CREATE INDEX ON numbered (batch)"
            );
            sqlx::raw_sql(AssertSqlSafe(script)).execute(pool).await.unwrap();
            let count: i64 = sqlx::query_scalar("SELECT max(batch) + 1 FROM numbered").fetch_one(pool).await.unwrap();
            batches.resize(count as usize, Vec::new());
            let sorted = if *name == "events_raw" { "" } else { "ORDER BY key" };
            for (number, batch) in batches.iter_mut().enumerate() {
                let rows = format!("SELECT {columns} FROM numbered WHERE batch = {number} {sorted}");
                let copied = pool.copy_out_raw(&format!("COPY ({rows}) TO STDOUT (FORMAT binary)")).await.unwrap();
                batch.push(copied.try_collect::<Vec<_>>().await.unwrap().concat());
            }
        }
        let statement = |table: &Table| format!("COPY {} ({}) FROM STDIN (FORMAT binary)", table.name, table.columns);
        Copies {
            statements: Arc::new(ceiling.tables.iter().map(statement).collect()),
            batches: batches.into_iter().map(Arc::new).collect(),
        }
    }

    async fn drop(self, server: &Server) {
        self.postgres.close().await;
        server.execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).await;
    }
}

/// The tables that a ceiling writes.
struct Ceiling {
    name: &'static str,
    tables: &'static [Table],
}

/// A table that a ceiling writes, and the stored rows that it writes: from `source`, in batches by `order`.
struct Table {
    name: &'static str,
    source: &'static str,
    columns: &'static str,
    order: &'static str,
}

impl Ceiling {
    const IDENTITIES: Table =
        Table { name: "event_identity", source: "event_identity", columns: "key, content, day", order: "ctid" };
    const EVENTS: Self = Self {
        name: "copy events",
        tables: &[
            Self::IDENTITIES,
            Table {
                name: "events_raw",
                source: "events_raw",
                columns: "source_id, event_id, user_id, type, started_at, ended_at, duration_sec, bytes_up, bytes_down, meta",
                // Each batch has events of all months.
                order: "md5(event_id::text)",
            },
        ],
    };
    const KEYS: Self = Self { name: "copy keys", tables: &[Table { name: "agg_identity", ..Self::IDENTITIES }] };
}

/// The encoded rows of each batch, by table, and the statement that writes each table.
struct Copies {
    statements: Arc<Vec<String>>,
    batches: Vec<Arc<Vec<Vec<u8>>>>,
}

/// The seconds that `connections` tasks need to store all batches.
async fn run_store(connections: usize, batches: &Batches, store: Arc<dyn EventStore>) -> f64 {
    run(connections, &batches.events, move |batch| {
        let store = Arc::clone(&store);
        async move { drop(store.store(&batch).await.unwrap()) }
    })
    .await
}

/// The seconds that `connections` tasks need for all batches.
async fn run<T, F>(connections: usize, batches: &[Arc<T>], write: impl Fn(Arc<T>) -> F + Clone + Send + 'static) -> f64
where
    T: Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let started = Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|task| {
            let own: Vec<_> = batches.iter().skip(task).step_by(connections).cloned().collect();
            let write = write.clone();
            tokio::spawn(async move {
                for batch in own {
                    write(batch).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    started.elapsed().as_secs_f64()
}
