//! The built programs on real services, as an operator has them.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use netagg_tests::programs::Process;
use netagg_tests::{eventually, kafka, postgres, redis, unique};
use sqlx::PgPool;

/// How long anything here may take; nothing is expected to come near it.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

/// Programs on services, topics and ports of their own.
#[derive(Debug)]
pub(super) struct Installation {
    variables: BTreeMap<String, String>,
    database: String,
    _fresh: Option<postgres::Database>,
}

impl Installation {
    /// On the shared services, with the schema and the topics made.
    pub(super) async fn new() -> Self {
        let database = postgres::database().await;
        let url = database.url().to_owned();
        let mut installation = Self::on(&url, &kafka::brokers().await, &redis::url().await);
        installation._fresh = Some(database);
        installation.set_up().await;
        installation
    }

    /// On these services, with nothing made yet.
    pub(super) fn on(database: &str, brokers: &str, redis: &str) -> Self {
        let topic = unique("events");
        let ports = free_ports::<5>().map(|port| port.to_string());
        let [ingestor, aggregator, api, http, grpc] = &ports;
        let variables = [
            ("DATABASE_URL", database),
            ("KAFKA_BROKERS", brokers),
            ("REDIS_URL", redis),
            ("KAFKA_TOPIC", &topic),
            ("KAFKA_DLQ_TOPIC", &format!("{topic}.dlq")),
            ("KAFKA_GROUP_ID_INGESTOR", &format!("{topic}-ingestor")),
            ("KAFKA_GROUP_ID_AGGREGATOR", &format!("{topic}-aggregator")),
            ("PPROF_PORT_INGESTOR", ingestor),
            ("PPROF_PORT_AGGREGATOR", aggregator),
            ("PPROF_PORT_API", api),
            ("API_HTTP_PORT", http),
            ("API_GRPC_PORT", grpc),
            // A killed member is noticed soon.
            ("KAFKA_OPT_SESSION_TIMEOUT_MS", "6000"),
            ("RUST_BACKTRACE", "1"),
        ];
        Self {
            variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            database: database.to_owned(),
            _fresh: None,
        }
    }

    /// Makes schema and topics with our own command.
    pub(super) async fn set_up(&self) {
        assert_eq!(self.run("netagg", &["migrate", "up"]).await.code, 0);
        assert_eq!(self.run("netagg", &["topic", "create"]).await.code, 0);
    }

    pub(super) fn variable(&self, name: &str) -> &str {
        &self.variables[name]
    }

    /// Sets a variable for the programs started from here on.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Starts a program.
    pub(super) fn start(&self, program: &str) -> Process {
        Process::start(program, [""; 0], &self.variables)
    }

    /// Runs a program to its end.
    pub(super) async fn run(&self, program: &str, arguments: &[&str]) -> Ended {
        let mut process = Process::start(program, arguments, &self.variables);
        let code = process.code(PATIENCE).await;
        Ended { code, stdout: process.stdout(), stderr: process.stderr() }
    }

    /// Runs the generator, with these variables beside the installation's.
    pub(super) fn generator(&self, variables: &[(&str, &str)]) -> Process {
        let mut all = self.variables.clone();
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        Process::start("generator", [""; 0], all)
    }

    /// The body and status of a path on a service's ops port.
    pub(super) async fn ops(&self, service: &str, path: &str) -> Result<(u16, String), String> {
        let port = self.variable(&format!("PPROF_PORT_{}", service.to_uppercase()));
        get(&format!("http://127.0.0.1:{port}{path}")).await
    }

    /// Waits until a service says it is ready, or not.
    pub(super) async fn readiness(&self, service: &str, status: u16) -> serde_json::Value {
        eventually(PATIENCE, &format!("{service} answers /readyz with {status}"), async || {
            let (found, body) = self.ops(service, "/readyz").await?;
            if found == status { serde_json::from_str(&body).map_err(|error| error.to_string()) } else { Err(body) }
        })
        .await
    }

    /// What the HTTP API answers.
    pub(super) async fn api(&self, path: &str) -> Result<(u16, serde_json::Value), String> {
        let (status, body) = get(&format!("http://127.0.0.1:{}{path}", self.variable("API_HTTP_PORT"))).await?;
        Ok((status, serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?))
    }

    pub(super) async fn pool(&self) -> PgPool {
        PgPool::connect(&self.database).await.expect("the database answers")
    }

    /// Waits until both services have drained the topic to `events` stored events, and checks that the totals are
    /// the sums over them.
    pub(super) async fn drained_and_exact(&self, events: i64) {
        let pool = self.pool().await;
        let what = format!("{events} events are stored and counted");
        eventually(PATIENCE, &what, async || {
            let counts: (i64, i64, i64) = sqlx::query_as(
                "SELECT (SELECT count(*) FROM events_raw), \
                 (SELECT coalesce(sum(count_events), 0)::bigint FROM agg_day), \
                 (SELECT coalesce(sum(count_events), 0)::bigint FROM agg_month)",
            )
            .fetch_one(&pool)
            .await
            .map_err(|error| error.to_string())?;
            if counts == (events, events, events) { Ok(()) } else { Err(format!("{counts:?}")) }
        })
        .await;
        assert_eq!(differences(&pool).await, Vec::<String>::new());
        pool.close().await;
    }
}

/// A program that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: i32,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Where the totals differ from the sums over the stored events, or an identity is stored twice.
async fn differences(pool: &PgPool) -> Vec<String> {
    let compare = |table: &str, date: &str, group: &str| {
        format!(
            "SELECT '{table} ' || coalesce(t.{date}, e.{date}) || ' ' || coalesce(t.type, e.type) \
             FROM {table} t FULL JOIN (SELECT {group} AS {date}, type, count(*) AS count_events, \
             coalesce(sum(duration_sec), 0) AS sum_duration, sum(bytes_up) AS sum_bytes_up, \
             sum(bytes_down) AS sum_bytes_down FROM events_raw GROUP BY 1, 2) e \
             ON t.{date} = e.{date} AND t.type = e.type \
             WHERE (t.count_events, t.sum_duration, t.sum_bytes_up, t.sum_bytes_down) \
             IS DISTINCT FROM (e.count_events, e.sum_duration, e.sum_bytes_up, e.sum_bytes_down)"
        )
    };
    let mut found = Vec::new();
    for query in [
        compare("agg_day", "day", "(started_at AT TIME ZONE 'UTC')::date"),
        compare("agg_month", "month", "date_trunc('month', started_at AT TIME ZONE 'UTC')::date"),
        "SELECT 'twice: ' || source_id || ' ' || event_id FROM events_raw GROUP BY source_id, event_id \
         HAVING count(*) > 1"
            .to_owned(),
    ] {
        let rows: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_all(pool).await.expect("a comparison");
        found.extend(rows);
    }
    found
}

async fn get(url: &str) -> Result<(u16, String), String> {
    let answer = reqwest::get(url).await.map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    Ok((status, answer.text().await.map_err(|error| error.to_string())?))
}

/// Ports that are free now; held together so that they differ.
pub(super) fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("an address").port())
}

/// The value of one of the generator's last figures.
pub(super) fn figure(stdout: &str, name: &str) -> String {
    let prefix = format!("{name}: ");
    let last = stdout.lines().rev().find_map(|line| line.strip_prefix(&prefix));
    last.unwrap_or_else(|| panic!("no {name} in {stdout}")).to_owned()
}
