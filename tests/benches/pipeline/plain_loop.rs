//! The plain loop that a team would write itself, for comparison. It stores and counts each batch in one transaction: COPY
//! into a temporary table, INSERT ... ON CONFLICT DO NOTHING RETURNING, totals of the returned rows, progress.
//!
//! The loop decodes with serde, checks nothing else, and writes no dead letters. Its table has no partitions.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use serde_json::Value;
use sqlx::{Connection, PgConnection};

/// The same batch size as netagg's default.
const BATCH: usize = 5_000;
const WAIT: Duration = Duration::from_millis(100);

pub(super) const SCHEMA: &str = "
    CREATE TABLE plain_events (
        source_id text COLLATE \"C\" NOT NULL, event_id uuid NOT NULL, user_id text COLLATE \"C\" NOT NULL, type text NOT NULL,
        started_at timestamptz NOT NULL, ended_at timestamptz, duration_sec int, bytes_up bigint NOT NULL,
        bytes_down bigint NOT NULL, meta jsonb, created_at timestamptz NOT NULL DEFAULT now(),
        PRIMARY KEY (source_id, event_id));
    CREATE INDEX plain_events_timeline ON plain_events (user_id, started_at DESC);
    CREATE TABLE plain_totals (
        day date, type text, count_events bigint, sum_duration bigint, sum_bytes_up numeric, sum_bytes_down numeric,
        PRIMARY KEY (day, type)) WITH (fillfactor = 50);
    CREATE TABLE plain_progress (partition int PRIMARY KEY, records bigint NOT NULL)";

const STAGE: &str = "
    CREATE TEMP TABLE stage (
        source_id text, event_id uuid, user_id text, type text, started_at timestamptz, ended_at timestamptz,
        duration_sec int, bytes_up bigint, bytes_down bigint, meta jsonb) ON COMMIT DELETE ROWS";

const MOVE: &str = "
    WITH new AS (
        INSERT INTO plain_events
            (source_id, event_id, user_id, type, started_at, ended_at, duration_sec, bytes_up, bytes_down, meta)
        SELECT * FROM stage ORDER BY source_id, event_id
        ON CONFLICT DO NOTHING
        RETURNING type, started_at, duration_sec, bytes_up, bytes_down)
    INSERT INTO plain_totals
    SELECT (started_at AT TIME ZONE 'UTC')::date, type, count(*), coalesce(sum(duration_sec), 0), sum(bytes_up), sum(bytes_down)
    FROM new GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (day, type) DO UPDATE SET
        count_events = plain_totals.count_events + excluded.count_events,
        sum_duration = plain_totals.sum_duration + excluded.sum_duration,
        sum_bytes_up = plain_totals.sum_bytes_up + excluded.sum_bytes_up,
        sum_bytes_down = plain_totals.sum_bytes_down + excluded.sum_bytes_down";

const PROGRESS: &str = "
    INSERT INTO plain_progress SELECT * FROM unnest($1::int[], $2::bigint[])
    ON CONFLICT (partition) DO UPDATE SET records = plain_progress.records + excluded.records";

/// Runs until it is killed.
pub(super) async fn run(database: &str, brokers: &str, topic: &str, group: &str) {
    let mut connection = PgConnection::connect(database).await.expect("the database answers");
    sqlx::raw_sql(STAGE).execute(&mut connection).await.expect("a stage");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[topic]).expect("subscribed");
    loop {
        let (mut rows, mut counts) = (String::new(), BTreeMap::<i32, i64>::new());
        let (begun, mut records) = (Instant::now(), 0);
        while records < BATCH && begun.elapsed() < WAIT {
            let Some(message) = consumer.poll(WAIT) else { continue };
            let message = message.expect("a message");
            let event: Value = serde_json::from_slice(message.payload().unwrap_or_default()).expect("an event");
            append(&mut rows, &event);
            *counts.entry(message.partition()).or_default() += 1;
            records += 1;
        }
        if records > 0 {
            // Duplicates may cause a deadlock between two loops.
            while let Err(error) = store(&mut connection, &rows, &counts).await {
                assert!(
                    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("40P01")),
                    "{error}"
                );
                sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.expect("rolled back");
            }
            consumer.commit_consumer_state(CommitMode::Async).expect("committed");
        }
    }
}

async fn store(connection: &mut PgConnection, rows: &str, counts: &BTreeMap<i32, i64>) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("BEGIN").execute(&mut *connection).await?;
    let mut copy = connection.copy_in_raw("COPY stage FROM STDIN (FORMAT csv)").await?;
    copy.send(rows.as_bytes()).await?;
    copy.finish().await?;
    sqlx::query(MOVE).execute(&mut *connection).await?;
    let (partitions, counts): (Vec<i32>, Vec<i64>) =
        counts.iter().map(|(partition, count)| (*partition, *count)).unzip();
    sqlx::query(PROGRESS).bind(partitions).bind(counts).execute(&mut *connection).await?;
    sqlx::raw_sql("COMMIT").execute(connection).await?;
    Ok(())
}

/// Appends a line of CSV to `rows`. An empty field means null.
fn append(rows: &mut String, event: &Value) {
    const FIELDS: [&str; 10] = [
        "source_id",
        "event_id",
        "user_id",
        "type",
        "started_at",
        "ended_at",
        "duration_sec",
        "bytes_up",
        "bytes_down",
        "meta",
    ];
    for (at, field) in FIELDS.into_iter().enumerate() {
        let end = if at + 1 == FIELDS.len() { '\n' } else { ',' };
        match event.get(field) {
            None | Some(Value::Null) => rows.push(end),
            Some(Value::String(text)) => write!(rows, "\"{}\"{end}", text.replace('"', "\"\"")).expect("written"),
            Some(value) => {
                write!(rows, "\"{}\"{end}", value.to_string().replace('"', "\"\"")).expect("written");
            }
        }
    }
}
