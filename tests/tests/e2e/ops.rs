//! The ops ports: the metrics match the sent records and the database, and the profiles can be read by `pprof`.

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use netagg_api::proto::GetGlobalAggRequest;
use netagg_api::proto::usage_service_client::UsageServiceClient;
use netagg_core::ports::{Clock, EventPublisher, SystemClock};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{InvalidKind, OutgoingRecord, Timestamp};
use netagg_kafka::{KafkaPublisher, KafkaTopics};
use netagg_testkit::eventually;
use pprof::protos::{Message, Profile};

use super::installation::{Installation, PATIENCE};
use crate::support::kafka::Transactions;

/// A scrape, parsed strictly: each family is listed once, with HELP and TYPE before its samples, and each series once.
#[derive(Debug, Default)]
struct Scrape {
    types: BTreeMap<String, String>,
    /// The values by series: the name with the labels as written in the scrape.
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    async fn of(installation: &Installation, service: &str) -> Result<Self, String> {
        let (status, text) = installation.ops(service, "/metrics").await?;
        if status == 200 { Ok(Self::parse(&text)) } else { Err(text) }
    }

    fn parse(text: &str) -> Self {
        let mut scrape = Self::default();
        let mut family = String::new();
        assert!(text.ends_with('\n'), "the last line has a line end");
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap_or_else(|| panic!("no text: {line}"));
                assert!(!scrape.types.contains_key(name), "{name} comes twice");
                assert!(help.len() > 10, "{line}");
                family = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert_eq!(name, family, "TYPE follows HELP");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else {
                scrape.sample(line, &family);
            }
        }
        scrape.check_histograms();
        scrape
    }

    fn sample(&mut self, line: &str, family: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let is_histogram = self.types.get(family).is_some_and(|kind| kind == "histogram");
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} is listed under {family}"));
        let suffixes: &[&str] = if is_histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.contains(&suffix), "{line} is listed under {family}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
        let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("labels do not end: {line}"));
        for label in labels.split("\",").filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{line}");
            assert!(!value.trim_end_matches('"').contains(['"', '\\', '\n']), "{line}");
        }
        assert!(self.samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
    }

    /// Checks that the counts of buckets do not fall, and that the last bucket counts all observations.
    fn check_histograms(&self) {
        for name in self.types.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut series: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
            for (labels, value) in self.starting(&format!("{name}_bucket{{")) {
                let (others, bound) = labels.rsplit_once("le=\"").expect("a bound");
                let bound = bound.trim_end_matches("\"}").parse().expect("a number or +Inf");
                series.entry(others.trim_end_matches(',').to_owned()).or_default().push((bound, value));
            }
            for (labels, mut buckets) in series {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.len() > 5 && buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name}: {buckets:?}");
                let count =
                    if labels.is_empty() { format!("{name}_count") } else { format!("{name}_count{{{labels}}}") };
                assert_eq!(buckets.last(), Some(&(f64::INFINITY, self.value(&count))), "{name}");
            }
        }
    }

    /// The series that start with `start`, without this start.
    fn starting(&self, start: &str) -> Vec<(&str, f64)> {
        self.samples.iter().filter_map(|(series, value)| Some((series.strip_prefix(start)?, *value))).collect()
    }

    fn value(&self, series: &str) -> f64 {
        *self.samples.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.samples))
    }

    fn sum(&self, name: &str) -> f64 {
        self.starting(&format!("{name}{{")).iter().map(|(_, value)| value).sum()
    }

    fn partitions(&self) -> usize {
        self.starting("netagg_consumer_lag_records{").len()
    }

    /// The lag: the number of records, their age, and the age of the commits.
    fn lag(&self) -> [f64; 3] {
        let of = |name| self.sum(name);
        [
            of("netagg_consumer_lag_records"),
            of("netagg_consumer_lag_seconds"),
            self.samples.get("netagg_commit_lag_seconds").copied().unwrap_or(f64::NAN),
        ]
    }
}

/// Waits until a scrape passes `check`.
async fn until(installation: &Installation, service: &str, name: &str, check: impl Fn(&Scrape) -> bool) -> Scrape {
    eventually(PATIENCE, &format!("{service}: {name}"), async || {
        let scrape = Scrape::of(installation, service).await?;
        if check(&scrape) { Ok(scrape) } else { Err(format!("{:#?}", scrape.samples)) }
    })
    .await
}

fn message(id: u128, bytes_up: u64) -> OutgoingRecord {
    let user = format!("user-{}", id % 50);
    let started_at = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let started_at = started_at[..11].to_owned() + "00:00:00Z";
    let event = event(EventTemplate { id, user: &user, started_at: &started_at, bytes_up, ..EventTemplate::default() });
    OutgoingRecord::new(event.encode()).with_key(user)
}

fn no_event(value: Option<&'static str>) -> OutgoingRecord {
    OutgoingRecord { value: value.map(Bytes::from), ..OutgoingRecord::default() }
}

async fn publish(installation: &Installation, records: Vec<OutgoingRecord>) {
    let publisher =
        KafkaPublisher::new(&installation.kafka(), installation.variable("KAFKA_TOPIC")).expect("a publisher");
    publisher.publish(records).await.expect("published");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counters_equal_the_sent_records_and_the_stored_events() {
    let mut installation = Installation::new().await;
    installation.set("API_CURSOR_SECRET", "hunter2-of-the-cursors");
    installation.set("KAFKA_OPT_SASL_PASSWORD", "hunter2-of-the-broker");
    let _services = ["ingestor", "aggregator", "api"].map(|name| installation.start(name));
    for service in ["ingestor", "aggregator"] {
        let scrape = until(&installation, service, "it has its partitions", |scrape| scrape.partitions() == 8).await;
        for name in ["netagg_events_consumed_total", "netagg_duplicates_total", "netagg_conflicting_duplicates_total"] {
            assert_eq!(scrape.value(name), 0.0, "{service}");
        }
    }
    let scrape = Scrape::of(&installation, "ingestor").await.expect("a scrape");
    for kind in InvalidKind::ALL {
        assert_eq!(scrape.value(&format!("netagg_dead_letters_total{{kind=\"{kind}\"}}")), 0.0);
    }

    let mut records: Vec<_> = (1..=400).map(|id| message(id, 0)).collect();
    records.extend((1..=60).map(|id| message(id, 0)));
    records.extend((1..=5).map(|id| message(id, 7)));
    records.extend([no_event(None), no_event(Some("no JSON")), no_event(Some("no JSON either")), no_event(Some("[]"))]);
    let sent = records.len() as f64;
    publish(&installation, records).await;

    let done = |scrape: &Scrape| {
        let finished = scrape.samples.get("netagg_batch_records_sum") == Some(&sent);
        finished && scrape.lag() == [0.0; 3]
    };
    let ingestor = until(&installation, "ingestor", "it has processed all records", done).await;
    let aggregator = until(&installation, "aggregator", "it has processed all records", done).await;
    // Both services process the copies of a conflict in the same order, so there is nothing to repair. conflicts.rs tests
    // opposite orders.
    assert_eq!(aggregator.value("netagg_repaired_days_total"), 0.0);
    for (scrape, new) in [(&ingestor, "netagg_events_stored_total"), (&aggregator, "netagg_events_aggregated_total")] {
        assert_eq!(scrape.value(new), 400.0);
        assert_eq!(scrape.value("netagg_duplicates_total"), 60.0);
        assert_eq!(scrape.value("netagg_conflicting_duplicates_total"), 5.0);
        assert_eq!(scrape.value("netagg_events_consumed_total"), sent);
        assert_eq!(scrape.value("netagg_batch_records_count"), scrape.value("netagg_batch_duration_seconds_count"));
        assert_eq!(scrape.sum("netagg_retries_total"), 0.0, "{:#?}", scrape.samples);
        assert_eq!(scrape.value("netagg_db_pool_connections{state=\"max\"}"), 8.0);
        let open =
            ["idle", "used"].map(|state| scrape.value(&format!("netagg_db_pool_connections{{state=\"{state}\"}}")));
        assert!((1.0..=8.0).contains(&open.iter().sum()), "{open:?}");
    }
    let stored = installation.value::<i64>("SELECT count(*) FROM events_raw").await as f64;
    let counted = installation.value::<i64>("SELECT coalesce(sum(count_events), 0)::bigint FROM agg_day").await as f64;
    assert_eq!([stored, counted], [400.0, 400.0]);
    assert_eq!(ingestor.sum("netagg_dead_letters_total"), 4.0);
    for (kind, dead_letters) in [("null_value", 1.0), ("malformed_json", 2.0), ("not_an_object", 1.0)] {
        assert_eq!(ingestor.value(&format!("netagg_dead_letters_total{{kind=\"{kind}\"}}")), dead_letters);
    }
    the_api_measures_its_requests(&installation).await;
    for service in ["ingestor", "aggregator", "api"] {
        every_service_has_common_metrics(&installation, service).await;
    }
}

async fn the_api_measures_its_requests(installation: &Installation) {
    let api = format!("http://127.0.0.1:{}", installation.variable("API_HTTP_PORT"));
    let get = async |path: &str| reqwest::get(format!("{api}{path}")).await.expect("a response").status().as_u16();
    let totals = "/api/v1/aggregates?granularity=DAY&from=2024-01-01&to=2024-02-01";
    assert_eq!([get(totals).await, get(totals).await, get(totals).await], [200; 3]);
    assert_eq!(get("/api/v1/users/user-1/detail?limit=0").await, 400);
    assert_eq!(get("/api/v1/users/user-2/detail").await, 200);
    assert_eq!([get("/favicon.ico").await, get("/user-3").await], [404, 404]);
    let method = reqwest::Method::from_bytes(b"MADEUP").expect("a method");
    reqwest::Client::new().request(method, format!("{api}{totals}")).send().await.expect("a response");
    let mut grpc = UsageServiceClient::connect(format!("http://127.0.0.1:{}", installation.variable("API_GRPC_PORT")))
        .await
        .expect("connected");
    let day = GetGlobalAggRequest { granularity: "DAY".to_owned(), ..GetGlobalAggRequest::default() };
    grpc.get_global_agg(day).await.expect("a response");
    grpc.get_global_agg(GetGlobalAggRequest::default()).await.expect_err("no granularity");

    let scrape = Scrape::of(installation, "api").await.expect("a scrape");
    let http = |labels: &str| scrape.value(&format!("netagg_http_request_duration_seconds_count{{{labels}}}"));
    let detail = r#"route="/api/v1/users/{user_id}/detail",method="GET""#;
    assert_eq!(http(r#"route="/api/v1/aggregates",method="GET",status="200""#), 3.0);
    assert_eq!(http(r#"route="/api/v1/aggregates",method="other",status="405""#), 1.0);
    assert_eq!(http(&format!(r#"{detail},status="400""#)), 1.0);
    assert_eq!(http(&format!(r#"{detail},status="200""#)), 1.0);
    assert_eq!(http(r#"route="unmatched",method="GET",status="404""#), 2.0);
    assert_eq!(scrape.starting("netagg_http_request_duration_seconds_count").len(), 5, "there are no other series");
    for code in ["Ok", "InvalidArgument"] {
        let series = format!("netagg_grpc_request_duration_seconds_count{{method=\"GetGlobalAgg\",code=\"{code}\"}}");
        assert_eq!(scrape.value(&series), 1.0);
    }
    // The default range of the gRPC request is another cache entry. The default range of the detail ends now, so the cache is
    // not asked for it.
    let found = ["local_hit", "hit"]
        .map(|outcome| scrape.value(&format!("netagg_cache_lookups_total{{outcome=\"{outcome}\"}}")));
    // The API itself keeps a response for a short time. On a slow machine this time may pass between the requests, and then
    // the response comes from Redis.
    let [local, hit] = found;
    assert!(
        local <= 2.0 && (2.0..=3.0).contains(&(local + hit)),
        "two of three requests use a cached response: {found:?}"
    );
    assert_eq!(scrape.value("netagg_cache_lookups_total{outcome=\"miss\"}"), 2.0);
    assert_eq!(scrape.value("netagg_cache_lookups_total{outcome=\"unavailable\"}"), 0.0);
}

async fn every_service_has_common_metrics(installation: &Installation, service: &str) {
    let port = installation.variable(&format!("PPROF_PORT_{}", service.to_uppercase()));
    let answer = reqwest::get(format!("http://127.0.0.1:{port}/metrics")).await.expect("a response");
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text().await.expect("a text");
    let password = url::Url::parse(installation.variable("DATABASE_URL")).expect("a URL");
    for secret in ["hunter2", "user-1", password.password().unwrap_or("hunter2")] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let scrape = Scrape::parse(&text);
    let up = |dependency| (dependency, 1.0);
    let expected: &[_] = match service {
        "ingestor" => &[up("kafka\"}"), up("partitions\"}"), up("postgres\"}")],
        "aggregator" => &[up("kafka\"}"), up("postgres\"}"), up("redis\"}")],
        _ => &[up("postgres\"}"), up("redis\"}")],
    };
    assert_eq!(scrape.starting("netagg_dependency_up{dependency=\""), expected, "{service}");
    let build = scrape.starting(&format!("netagg_build_info{{version=\"{}\",rust=\"1.", env!("CARGO_PKG_VERSION")));
    assert!(matches!(build[..], [(_, 1.0)]), "{build:?}");
    let resident = scrape.value("process_resident_memory_bytes");
    assert!((1e6..256e6).contains(&resident), "{resident}");
    for name in ["process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds"] {
        assert!(scrape.value(name) >= 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_show_the_lag_while_writes_fail_and_only_for_assigned_partitions() {
    let installation = Installation::new().await;
    let pool = installation.pool().await;
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ \
                  BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$; \
                  CREATE TRIGGER refuse BEFORE INSERT ON event_identity FOR EACH STATEMENT EXECUTE FUNCTION refuse()";
    sqlx::raw_sql(refuse).execute(&pool).await.expect("the trigger is created");
    let _ingestor = installation.start("ingestor");
    until(&installation, "ingestor", "it has its partitions", |scrape| scrape.partitions() == 8).await;
    publish(&installation, (1..=50).map(|id| message(id, 0)).collect()).await;
    let behind = |scrape: &Scrape| {
        let [events, age, commit] = scrape.lag();
        events == 50.0
            && age > 0.0
            && commit > 0.0
            && scrape.value("netagg_retries_total{dependency=\"postgres\"}") > 3.0
    };
    let scrape = until(&installation, "ingestor", "it is behind", behind).await;
    assert_eq!(scrape.value("netagg_events_stored_total"), 0.0);
    until(&installation, "ingestor", "its database cannot be used", |scrape| {
        scrape.value("netagg_dependency_up{dependency=\"postgres\"}") == 0.0
    })
    .await;
    sqlx::raw_sql("DROP TRIGGER refuse ON event_identity").execute(&pool).await.expect("the trigger is dropped");
    pool.close().await;
    let scrape = until(&installation, "ingestor", "it has no lag", |scrape| scrape.lag() == [0.0; 3]).await;
    assert_eq!(scrape.value("netagg_events_stored_total"), 50.0);
    assert_eq!(scrape.partitions(), 8);

    let _other = installation.another("ingestor");
    until(&installation, "ingestor", "it has lost half of its partitions", |scrape| scrape.partitions() == 4).await;
}

/// Requests a profile.
async fn profile(installation: &Installation, path: &str) -> (u16, Vec<u8>) {
    let port = installation.variable("PPROF_PORT_API");
    let answer = reqwest::get(format!("http://127.0.0.1:{port}/debug/pprof/{path}")).await.expect("a response");
    (answer.status().as_u16(), answer.bytes().await.expect("a body").into())
}

/// The names of the functions on the stacks of a profile.
fn functions(gzip: &[u8]) -> Vec<String> {
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(gzip).read_to_end(&mut plain).expect("gzip");
    let profile = Profile::decode(&plain[..]).expect("a profile");
    assert!(!profile.sample.is_empty() && !profile.sample_type.is_empty(), "{profile:?}");
    profile.function.iter().map(|function| profile.string_table[function.name as usize].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn profiles_name_functions_and_run_one_at_a_time() {
    let mut installation = Installation::new().await;
    let api = installation.start("api");
    installation.readiness("api", 200).await;
    // Requests keep the service busy, because an idle service has no samples.
    let url = format!("http://127.0.0.1:{}/api/v1/users/1/detail", installation.variable("API_HTTP_PORT"));
    let busy = tokio::spawn(async move {
        loop {
            let _ = reqwest::get(&url).await;
        }
    });
    let responses =
        tokio::join!(profile(&installation, "profile?seconds=1"), profile(&installation, "profile?seconds=1"));
    let (((200, accepted), (409, rejected)) | ((409, rejected), (200, accepted))) = responses else {
        panic!("of two concurrent requests, one is accepted and one is rejected");
    };
    assert!(String::from_utf8_lossy(&rejected).contains("another profile"));
    let names = functions(&accepted);
    assert!(names.iter().any(|name| name.contains("netagg_api")), "{names:?}");
    assert_eq!(profile(&installation, "profile?seconds=1").await.0, 200, "the next request is accepted");
    busy.abort();
    let (status, heap) = profile(&installation, "heap").await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&heap));
    let names = functions(&heap);
    assert!(names.iter().any(|name| name.contains("::")), "{names:?}");
    assert_eq!(profile(&installation, "heap?seconds=1").await.0, 400);
    for query in ["seconds=0", "seconds=61", "seconds=x", "seconds=", "second=1", "seconds=1&seconds=2"] {
        let (status, body) = profile(&installation, &format!("profile?{query}")).await;
        let body = String::from_utf8_lossy(&body);
        assert_eq!(status, 400, "{query}: {body}");
        assert!(body.contains(query) && body.contains("seconds=1 to seconds=60"), "{body}");
    }
    drop(api);

    installation.set("PPROF_ENABLED", "false");
    let _api = installation.start("api");
    installation.readiness("api", 200).await;
    assert_eq!(profile(&installation, "profile?seconds=1").await.0, 404);
    assert_eq!(profile(&installation, "heap").await.0, 404);
    assert_eq!(installation.ops("api", "/metrics").await.expect("a response").0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_goes_to_zero_if_the_last_offsets_hold_no_record() {
    let installation = Installation::new().await;
    let services = ["ingestor", "aggregator"];
    let _running = ["ingestor", "aggregator", "api"].map(|name| installation.start(name));
    for service in services {
        until(&installation, service, "it has its partitions", |scrape| scrape.partitions() == 8).await;
    }
    let topic = installation.variable("KAFKA_TOPIC");
    let transactions = Transactions::new(installation.variable("KAFKA_BROKERS")).await;
    let values: Vec<_> =
        (1..=8).map(|id| String::from_utf8(message(id, 0).value.expect("a value").to_vec()).expect("JSON")).collect();
    for (partition, value) in (0..).zip(&values) {
        transactions.send(topic, partition, &[value]).await;
        // An aborted transaction leaves its records and a marker: 2 offsets.
        if partition % 2 == 0 { transactions.commit().await } else { transactions.abort().await }
    }
    transactions.send(topic, 7, &[&values[7]]).await;
    transactions.commit().await;
    // A replay sends a dead letter in a transaction, too.
    publish(&installation, vec![no_event(Some("no JSON"))]).await;
    eventually(PATIENCE, "the dead letter is written", async || {
        let dead_letters = installation.dead_letters().await.len();
        if dead_letters == 1 { Ok(()) } else { Err(dead_letters.to_string()) }
    })
    .await;
    assert_eq!(installation.run("netagg", &["dlq", "replay"]).await.code, 0);
    let ended = SystemClock.now();

    for service in services {
        let scrape = until(&installation, service, "it has no lag", |scrape| scrape.lag() == [0.0; 3]).await;
        assert_eq!(scrape.partitions(), 8);
        let group = installation.variable(&format!("KAFKA_GROUP_ID_{}", service.to_uppercase()));
        let topics = KafkaTopics::new(&installation.kafka()).expect("an administrator");
        eventually(PATIENCE, "the group has committed the end of each partition", async || {
            let lag = topics.lag_in_offsets(group, topic).await.expect("a response").expect("the topic");
            let behind: Vec<_> = lag.iter().filter(|lag| lag.lag > 0).collect();
            if behind.is_empty() { Ok(()) } else { Err(format!("{behind:?}")) }
        })
        .await;
    }
    installation.drained_and_exact(5).await;
    let audit = installation.run("netagg", &["audit", "--json"]).await;
    assert_eq!(audit.code, 0, "{}\n{}", audit.stdout, audit.stderr);
    let offsets = installation.offsets().await;
    let pool = installation.pool().await;
    for service in services {
        let query = "SELECT sum(upper(range) - lower(range))::bigint FROM consumer_progress, unnest(done) AS range \
                     WHERE service = $1";
        let done: i64 = sqlx::query_scalar(query).bind(service).fetch_one(&pool).await.expect("a sum");
        assert_eq!(done, offsets, "{service}: each offset is accounted for");
    }
    pool.close().await;
    eventually(PATIENCE, "the totals are complete", async || {
        let path = "/api/v1/aggregates?granularity=DAY&from=2020-01-01&to=2029-12-28";
        let (_, answer) = installation.api(path).await?;
        let through: Option<Timestamp> = answer["complete_through"].as_str().and_then(|text| text.parse().ok());
        if through >= Some(ended) { Ok(()) } else { Err(answer.to_string()) }
    })
    .await;
}
