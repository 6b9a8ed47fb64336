//! An installation of the built programs with real servers, as an operator runs it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use netagg_core::Record;
use netagg_kafka::{DlqReader, KafkaConfig, KafkaTopics};
use netagg_testkit::{Port, eventually, kafka, postgres, redis, unique};
use sqlx::PgPool;

use super::adversary::Adversary;
use crate::support::programs::Process;

/// How long a step may take. Also on a slow and busy machine, each step needs much less time.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// The variables of programs with their own database, topics and ports.
#[derive(Debug)]
pub(super) struct Installation {
    variables: BTreeMap<String, String>,
    database: String,
    _ports: [Port; 5],
    _fresh: Option<postgres::Database>,
}

impl Installation {
    /// An installation on the shared servers, with schema and topics.
    pub(super) async fn new() -> Self {
        let database = postgres::database().await;
        let url = database.url().to_owned();
        let mut installation = Self::on(&url, &kafka::brokers().await, &redis::url().await);
        installation._fresh = Some(database);
        installation.set_up().await;
        installation
    }

    /// An installation on these servers, without schema and topics.
    pub(super) fn on(database: &str, brokers: &str, redis: &str) -> Self {
        let topic = unique("events");
        let ports: [Port; 5] = std::array::from_fn(|_| Port::reserve());
        let [ingestor, aggregator, api, http, grpc] = &ports.each_ref().map(|port| port.number().to_string());
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
            // With this setting, the broker soon notices that a member was killed.
            ("KAFKA_OPT_SESSION_TIMEOUT_MS", "6000"),
            ("RUST_BACKTRACE", "1"),
        ];
        Self {
            variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            database: database.to_owned(),
            _ports: ports,
            _fresh: None,
        }
    }

    /// Creates schema and topics with `netagg`. It repeats a command, because on a busy machine a server may respond later
    /// than the command waits.
    pub(super) async fn set_up(&self) {
        for arguments in [["migrate", "up"], ["topic", "create"]] {
            eventually(PATIENCE, &arguments.join(" "), async || {
                let Ended { code, stdout, stderr } = self.run("netagg", &arguments).await;
                if code == 0 { Ok(()) } else { Err(format!("exit code {code}\n{stdout}{stderr}")) }
            })
            .await;
        }
    }

    pub(super) fn variable(&self, name: &str) -> &str {
        &self.variables[name]
    }

    /// The names and values of all variables.
    pub(super) fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Sets a variable for the programs that are started afterwards.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// An installation in the combined mode: the ingestor also counts, and no aggregator runs.
    pub(super) async fn combined() -> Self {
        let mut installation = Self::new().await;
        installation.set("INGESTOR_MODE", "combined");
        installation
    }

    /// The services that read the topic.
    pub(super) fn consumers(&self) -> &'static [&'static str] {
        let is_combined = self.variables.get("INGESTOR_MODE").is_some_and(|mode| mode == "combined");
        if is_combined { &["ingestor"] } else { &["aggregator", "ingestor"] }
    }

    /// Uses the topics and groups of another installation, and its addresses where this installation has none.
    pub(super) fn share(&mut self, other: &Self) {
        for (name, value) in &other.variables {
            let is_own = matches!(name.as_str(), "DATABASE_URL" | "KAFKA_BROKERS" | "REDIS_URL");
            if name.starts_with("KAFKA_") && !is_own || is_own && self.variables[name].is_empty() {
                self.variables.insert(name.clone(), value.clone());
            }
        }
    }

    /// Starts a program.
    pub(super) fn start(&self, program: &str) -> Process {
        Process::start(program, [""; 0], &self.variables)
    }

    /// Starts a program through a shell that runs the command `first` before, with these redirections.
    pub(super) fn start_in_shell(&self, program: &str, first: &str, redirections: &str) -> Process {
        Process::start_in_shell(program, first, redirections, [""; 0], &self.variables)
    }

    /// Runs `netagg` to its end, through a shell with these redirections.
    pub(super) async fn run_in_shell(&self, arguments: &[&str], redirections: &str) -> Ended {
        ended(Process::start_in_shell("netagg", "", redirections, arguments, &self.variables)).await
    }

    /// Starts a program. `change` may replace its stdout or stderr.
    pub(super) fn start_with(&self, program: &str, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Process {
        Process::start_with(program, arguments, &self.variables, change)
    }

    /// Starts `netagg` with these arguments.
    pub(super) fn command(&self, arguments: &[&str]) -> Process {
        Process::start("netagg", arguments, &self.variables)
    }

    /// Starts another member of a service, with its own ops port.
    pub(super) fn another(&self, service: &str) -> Process {
        let port = Port::reserve().number().to_string();
        self.start_set(service, &[(&format!("PPROF_PORT_{}", service.to_uppercase()), &port)])
    }

    /// Runs a program to its end.
    pub(super) async fn run(&self, program: &str, arguments: &[&str]) -> Ended {
        ended(Process::start(program, arguments, &self.variables)).await
    }

    /// Starts the generator with the variables of the installation and these variables.
    pub(super) fn generator(&self, variables: &[(&str, &str)]) -> Process {
        self.start_set("generator", variables)
    }

    /// Runs a program to its end, with the variables of the installation and these variables.
    pub(super) async fn run_set(&self, program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
        ended(Process::start(program, arguments, self.variables_and(variables))).await
    }

    /// The variables of the installation and these variables.
    fn variables_and(&self, variables: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut all = self.variables.clone();
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        all
    }

    /// Starts a program with the variables of the installation and these variables.
    pub(super) fn start_set(&self, program: &str, variables: &[(&str, &str)]) -> Process {
        Process::start(program, [""; 0], self.variables_and(variables))
    }

    /// Sends events, duplicates and invalid messages, and waits until the events are stored. Returns the number of events.
    pub(super) async fn load(&self) -> i64 {
        let load = [
            ("GENERATOR_EVENTS_PER_SEC", "2000"),
            ("GENERATOR_DURATION", "2s"),
            ("GENERATOR_VERIFY_INTERVAL", "500ms"),
            ("GENERATOR_INVALID_RATE", "0.05"),
        ];
        let mut generator = self.generator(&load);
        assert_eq!(generator.code(PATIENCE).await, 0, "{}", generator.stderr());
        figure(&generator.stdout(), "events_sent").parse().expect("a number")
    }

    /// The status and the body of the response of a service's ops port.
    pub(super) async fn ops(&self, service: &str, path: &str) -> Result<(u16, String), String> {
        let port = self.variable(&format!("PPROF_PORT_{}", service.to_uppercase()));
        get(&format!("http://127.0.0.1:{port}{path}")).await
    }

    /// Waits until /readyz of a service responds with `status`. Returns the report.
    pub(super) async fn readiness(&self, service: &str, status: u16) -> serde_json::Value {
        eventually(PATIENCE, &format!("/readyz of {service} responds with {status}"), async || {
            let (found, body) = self.ops(service, "/readyz").await?;
            if found == status { serde_json::from_str(&body).map_err(|error| error.to_string()) } else { Err(body) }
        })
        .await
    }

    /// Waits until a service is ready and its report has no problem with these names.
    pub(super) async fn readiness_without(&self, names: &[&str], service: &str) {
        eventually(PATIENCE, &format!("{service} is ready without a problem of {names:?}"), async || {
            let (status, body) = self.ops(service, "/readyz").await?;
            let is_free = !names.iter().any(|name| body.contains(&format!("\"{name}\"")));
            if status == 200 && is_free { Ok(()) } else { Err(format!("{status} {body}")) }
        })
        .await;
    }

    /// Waits until both services have processed the topic and repaired the dirty days, and all totals are exact.
    pub(super) async fn eventually_exact(&self, events: i64) {
        let pool = self.pool().await;
        eventually(PATIENCE, "the totals equal the events", async || {
            let differences = differences(&pool).await;
            if differences.is_empty() { Ok(()) } else { Err(format!("{differences:?}")) }
        })
        .await;
        pool.close().await;
        self.drained_and_exact(events).await;
    }

    /// Waits until a service has processed some records.
    pub(super) async fn works(&self, service: &str) {
        let pool = self.pool().await;
        eventually(PATIENCE, &format!("{service} has processed some records"), async || {
            let query = "SELECT EXISTS (SELECT FROM consumer_progress WHERE service = $1)";
            let works = sqlx::query_scalar(query).bind(service).fetch_one(&pool).await;
            if works.map_err(|error| error.to_string())? { Ok(()) } else { Err("no progress".to_owned()) }
        })
        .await;
        pool.close().await;
    }

    /// The response of the HTTP API.
    pub(super) async fn api(&self, path: &str) -> Result<(u16, serde_json::Value), String> {
        let (status, body) = get(&format!("http://127.0.0.1:{}{path}", self.variable("API_HTTP_PORT"))).await?;
        Ok((status, serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?))
    }

    /// The committed messages of the topic of events. The messages of each partition are in order.
    pub(super) async fn messages(&self) -> Vec<Record> {
        let reader = DlqReader::new(&self.kafka(), self.variable("KAFKA_TOPIC"));
        let mut messages = reader.read(None).await.expect("the topic");
        let mut read = Vec::new();
        while let Some(message) = messages.next().await.expect("a message") {
            read.push(message.record);
        }
        read
    }

    /// The sum of the end offsets of the topic of events.
    pub(super) async fn offsets(&self) -> i64 {
        let topics = KafkaTopics::new(&self.kafka()).expect("an administrator");
        let topic = topics.describe(self.variable("KAFKA_TOPIC")).await.expect("described").expect("the topic");
        topic.partitions.iter().map(|partition| partition.high).sum()
    }

    pub(super) fn kafka(&self) -> KafkaConfig {
        KafkaConfig::new(self.variable("KAFKA_BROKERS"))
    }

    pub(super) async fn pool(&self) -> PgPool {
        PgPool::connect(&self.database).await.expect("the database answers")
    }

    /// The value that `query` returns.
    pub(super) async fn value<T>(&self, query: &'static str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let pool = self.pool().await;
        let value = sqlx::query_scalar(query).fetch_one(&pool).await.expect("a value");
        pool.close().await;
        value
    }

    /// The partitions and offsets of the messages that became dead letters.
    pub(super) async fn dead_letters(&self) -> BTreeSet<(i32, i64)> {
        let dead_letters = self.run("netagg", &["dlq", "list", "--json", "--limit", "1000000"]).await;
        assert_eq!(dead_letters.code, 0, "{}", dead_letters.stderr);
        dead_letters.stdout.lines().map(source_of_dead_letter).collect()
    }

    /// A publisher of events that make exact totals difficult.
    pub(super) fn adversary(&self, seed: u64) -> Adversary {
        Adversary::new(&self.kafka(), self.variable("KAFKA_TOPIC"), seed)
    }

    /// Waits until both services have processed all records of the adversary. Then checks events, totals, dead letters and the
    /// verdict of `netagg audit`: nothing is lost or doubled.
    pub(super) async fn withstood(&self, adversary: &Adversary) {
        let pool = self.pool().await;
        eventually(PATIENCE, "the services have processed every record", async || {
            let done: Vec<(String, i64)> = sqlx::query_as(
                "SELECT service, sum(upper(range) - lower(range))::bigint \
                 FROM consumer_progress, unnest(done) AS range WHERE topic = $1 GROUP BY 1 ORDER BY 1",
            )
            .bind(self.variable("KAFKA_TOPIC"))
            .fetch_all(&pool)
            .await
            .map_err(|error| error.to_string())?;
            let all = |service: &&str| ((*service).to_owned(), adversary.records());
            if done == self.consumers().iter().map(all).collect::<Vec<_>>() { Ok(()) } else { Err(format!("{done:?}")) }
        })
        .await;
        // Both copies of each conflict are known now. The days of a conflict may still be dirty.
        eventually(PATIENCE, "the totals equal the events", async || {
            let differences = differences(&pool).await;
            if differences.is_empty() { Ok(()) } else { Err(format!("{differences:?}")) }
        })
        .await;
        let stored: i64 =
            sqlx::query_scalar("SELECT count(*) FROM events_raw").fetch_one(&pool).await.expect("a count");
        assert_eq!(stored, adversary.events());
        pool.close().await;
        assert_eq!(self.dead_letters().await.len() as i64, adversary.invalid());
        let audit = self.run("netagg", &["audit"]).await;
        assert_eq!(audit.code, 0, "{}\n{}", audit.stdout, audit.stderr);
    }

    /// Waits until both services have processed the topic and `events` events are stored. Then checks that the totals are the
    /// sums over the events.
    pub(super) async fn drained_and_exact(&self, events: i64) {
        let pool = self.pool().await;
        let condition = format!("{events} events are stored and counted");
        eventually(PATIENCE, &condition, async || {
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

/// Waits until a program has ended.
pub(super) async fn ended(mut process: Process) -> Ended {
    let code = process.code(PATIENCE).await;
    Ended { code, stdout: process.stdout(), stderr: process.stderr() }
}

/// The partition and the offset of the original message of a listed dead letter.
fn source_of_dead_letter(line: &str) -> (i32, i64) {
    let dead_letter: serde_json::Value = serde_json::from_str(line).expect("one JSON object per line");
    let number = |field: &str| dead_letter["source"][field].as_i64().expect("a number");
    (number("partition") as i32, number("offset"))
}

/// The rows of totals that differ from the sums over the stored events, and the identities that are stored twice.
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
    let response = reqwest::get(url).await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    Ok((status, response.text().await.map_err(|error| error.to_string())?))
}

/// The value of the figure `name` in the last report of the generator.
pub(super) fn figure(stdout: &str, name: &str) -> String {
    let prefix = format!("{name}: ");
    let last = stdout.lines().rev().find_map(|line| line.strip_prefix(&prefix));
    last.unwrap_or_else(|| panic!("no {name} in {stdout}")).to_owned()
}
