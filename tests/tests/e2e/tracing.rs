//! Traces: they continue from `netagg import` to the batch that stores an event, and from a request to its statements.

use std::time::{Duration, Instant};

use netagg_api::proto::GetGlobalAggRequest;
use netagg_api::proto::usage_service_client::UsageServiceClient;
use netagg_core::TraceContext;
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::testkit::{EventTemplate, event};
use netagg_testkit::eventually;
use tonic::Request;

use super::installation::{Installation, PATIENCE};
use crate::support::otlp::{OtlpReceiver, ReceivedSpan};
use crate::support::programs::Process;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT_ID: &str = "00f067aa0ba902b7";

/// An installation whose programs send their traces to `endpoint` within a moment.
async fn traced(endpoint: &str, protocol: &str) -> Installation {
    let mut installation = Installation::new().await;
    installation.set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    installation.set("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
    installation.set("OTEL_BSP_SCHEDULE_DELAY", "100");
    installation
}

/// Imports an event of now and an invalid message, and waits until both services have processed them.
async fn import(installation: &Installation) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("events.ndjson");
    let now = SystemClock.now().to_string();
    let event = event(EventTemplate { started_at: &now, ..EventTemplate::default() });
    std::fs::write(&path, event.encode()).expect("written");
    let imported = installation.run("netagg", &["import", path.to_str().expect("UTF-8")]).await;
    assert_eq!(imported.code, 0, "{}", imported.stderr);
    installation.drained_and_exact(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_followed_from_its_import_to_the_batches_that_store_and_count_it() {
    let receiver = OtlpReceiver::start().await;
    let installation = traced(&receiver.grpc(), "grpc").await;
    let _services: Vec<Process> = installation.consumers().iter().map(|name| installation.start(name)).collect();
    import(&installation).await;
    let topic = installation.variable("KAFKA_TOPIC");
    let sent = receiver.span(PATIENCE, "the import is traced", |span| span.service == "netagg").await;
    assert_eq!(sent.name, format!("send {topic}"));
    assert_eq!(sent.attributes["messaging.destination.name"], topic);
    for (service, statement) in [("netagg-ingestor", "INSERT events_raw"), ("netagg-aggregator", "INSERT agg_day")] {
        let batch = receiver
            .span(PATIENCE, "the batch is linked to the import", |span| {
                span.service == service && span.links.contains(&sent.trace_id)
            })
            .await;
        assert_eq!(batch.name, format!("process {topic}"));
        assert_eq!(batch.attributes["messaging.batch.message_count"], 1);
        eventually(PATIENCE, "the steps of the batch are traced", async || {
            let names = receiver.names_below(&batch);
            let expected = ["decode", "ledger", statement, "COMMIT"];
            if expected.iter().all(|name| names.iter().any(|found| found == name)) {
                Ok(())
            } else {
                Err(names.join(", "))
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_continues_the_trace_of_its_client_down_to_its_statements() {
    let receiver = OtlpReceiver::start().await;
    let mut installation = traced(&receiver.http(), "http/protobuf").await;
    installation.set("LOG_LEVEL", "debug");
    // The value is percent-encoded once.
    installation.set("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=100%2525");
    let mut api = installation.start("api");
    installation.readiness("api", 200).await;
    let traceparent = format!("00-{TRACE_ID}-{PARENT_ID}-01");
    let client = reqwest::Client::new();
    let get = async |path: &str| {
        let url = format!("http://127.0.0.1:{}{path}", installation.variable("API_HTTP_PORT"));
        client.get(url).header("traceparent", &traceparent).send().await.expect("a response")
    };

    let response = get("/api/v1/aggregates?granularity=DAY&from=2025-01-01&to=2025-01-02").await;
    assert_eq!(response.headers()["trace-id"], TRACE_ID);
    let request = receiver.span(PATIENCE, "the request is traced", |span| span.name == "GET /api/v1/aggregates").await;
    assert_eq!((request.trace_id.as_str(), request.parent_id.as_str()), (TRACE_ID, PARENT_ID));
    assert_eq!(request.attributes["http.response.status_code"], 200);
    eventually(PATIENCE, "the steps of the request are traced", async || {
        let names = receiver.names_below(&request);
        let expected = ["cache lookup", "single flight", "SELECT agg_day"];
        if expected.iter().all(|name| names.iter().any(|found| found == name)) { Ok(()) } else { Err(names.join(", ")) }
    })
    .await;

    let pool = installation.pool().await;
    sqlx::query("ALTER TABLE agg_day RENAME TO away").execute(&pool).await.expect("renamed");
    let response = get("/api/v1/aggregates?granularity=DAY&from=2025-02-01&to=2025-02-02").await;
    assert!(response.status().is_server_error(), "{}", response.status());
    let failed = |span: &ReceivedSpan| span.name == "SELECT agg_day" && span.is_error;
    let failed = receiver.span(PATIENCE, "the failed statement is traced", failed).await;
    for name in ["error.type", "db.response.status_code"] {
        assert_eq!(failed.attributes[name], "42P01", "the code of PostgreSQL for a missing table");
    }
    let url = format!("http://127.0.0.1:{}", installation.variable("API_GRPC_PORT"));
    let mut request = Request::new(GetGlobalAggRequest {
        granularity: "DAY".to_owned(),
        from: "2025-03-01".to_owned(),
        to: "2025-03-02".to_owned(),
        ..GetGlobalAggRequest::default()
    });
    request.metadata_mut().insert("traceparent", traceparent.parse().expect("ASCII"));
    let mut failing = UsageServiceClient::connect(url).await.expect("connected");
    failing.get_global_agg(request).await.expect_err("the table is missing");
    let failed = |span: &ReceivedSpan| span.name == "telecom.v1.UsageService/GetGlobalAgg" && span.is_error;
    let failed = receiver.span(PATIENCE, "the failed gRPC request is traced", failed).await;
    assert_eq!(failed.attributes["error.type"], failed.attributes["rpc.response.status_code"]);
    pool.close().await;

    let problem = get("/api/v1/users/a-user/detail?limit=0").await;
    assert_eq!(problem.headers()["trace-id"], TRACE_ID);
    let problem: serde_json::Value = problem.json().await.expect("JSON");
    assert_eq!(problem["trace_id"], TRACE_ID, "{problem}");
    let request = receiver
        .span(PATIENCE, "the problem is traced", |span| span.name == "GET /api/v1/users/{user_id}/detail")
        .await;
    assert!(!request.is_error, "a wrong request is no error of the server");
    let private = request.attributes.values().any(|value| value.to_string().contains("a-user"));
    assert!(!private, "traces hold no user id: {:?}", request.attributes);

    let grpc = format!("http://127.0.0.1:{}", installation.variable("API_GRPC_PORT"));
    let mut client = UsageServiceClient::connect(grpc).await.expect("connected");
    let mut request = Request::new(GetGlobalAggRequest::default());
    request.metadata_mut().insert("traceparent", traceparent.parse().expect("ASCII"));
    let code = client.get_global_agg(request).await.expect_err("the dates are missing").code();
    assert_eq!(code, tonic::Code::InvalidArgument);
    let request = receiver
        .span(PATIENCE, "the gRPC request is traced", |span| {
            span.name == "telecom.v1.UsageService/GetGlobalAgg" && !span.is_error
        })
        .await;
    assert_eq!((request.trace_id.as_str(), request.parent_id.as_str()), (TRACE_ID, PARENT_ID));
    assert_eq!(request.attributes["rpc.response.status_code"], "INVALID_ARGUMENT");
    api.terminate();
    assert_eq!(api.code(PATIENCE).await, 0, "{}", api.stderr());
    // The stop has exported the last spans. The checks of readiness, which ran every second, have made no trace.
    let is_of_client = |span: &ReceivedSpan| span.trace_id == TRACE_ID;
    let others: Vec<_> = receiver.spans().into_iter().filter(|span| !is_of_client(span)).collect();
    assert!(others.is_empty(), "{others:?}");
    assert_eq!(receiver.headers()["x-tenant"], "100%25");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_lines_of_a_request_have_the_id_of_its_trace() {
    let receiver = OtlpReceiver::start().await;
    let mut installation = traced(&receiver.http(), "http/protobuf").await;
    // Each request fails and logs the reason, because the port of the database is closed.
    installation.set("DATABASE_READ_URL", "postgres://reader@127.0.0.1:1/none");
    let api = installation.start("api");
    let url = format!("http://127.0.0.1:{}/api/v1/users/u/detail", installation.variable("API_HTTP_PORT"));
    let traceparent = format!("00-{TRACE_ID}-{PARENT_ID}-01");
    let client = reqwest::Client::new();
    eventually(PATIENCE, "the request fails in the database", async || {
        let response = client.get(&url).header("traceparent", &traceparent).send().await.map_err(|e| e.to_string())?;
        let trace_id = response.headers().get("trace-id").cloned();
        if trace_id.is_some_and(|id| id == TRACE_ID) { Ok(()) } else { Err(response.status().to_string()) }
    })
    .await;
    let line = eventually(PATIENCE, "the failure is logged", async || {
        let lines = api.stderr();
        let line = lines.lines().find(|line| line.contains("a request cannot be answered now"));
        line.map(str::to_owned).ok_or(lines)
    })
    .await;
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["trace_id"], TRACE_ID, "{line}");
    let request = receiver.span(PATIENCE, "the request is traced", |span| span.is_error).await;
    assert_eq!(request.trace_id, TRACE_ID);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_receiver_costs_only_spans_which_are_counted() {
    for (protocol, reason) in [("grpc", "transport error"), ("http/protobuf", "Connection refused")] {
        absent_receiver(protocol, reason).await;
    }
}

async fn absent_receiver(protocol: &str, reason: &str) {
    let mut installation = traced("http://127.0.0.1:1", protocol).await;
    installation.set("OTEL_BSP_MAX_QUEUE_SIZE", "8");
    installation.set("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8");
    let mut services: Vec<Process> = installation.consumers().iter().map(|name| installation.start(name)).collect();
    let events = installation.load().await;
    installation.drained_and_exact(events).await;
    for reason in ["queue_full", "export_failed"] {
        eventually(PATIENCE, "dropped spans are counted", async || {
            let (_, metrics) = installation.ops("ingestor", "/metrics").await?;
            let series = format!("netagg_trace_spans_dropped_total{{reason=\"{reason}\"}} ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap_or("0");
            if value == "0" { Err(metrics.clone()) } else { Ok(()) }
        })
        .await;
    }
    for service in &mut services {
        service.terminate();
        assert_eq!(service.code(PATIENCE).await, 0, "{}", service.stderr());
    }
    let text = services[0].stderr();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("spans cannot be exported")).collect();
    assert_eq!(lines.len(), 1, "one line, whatever the number of failures\n{text}");
    assert!(lines[0].contains(reason), "the line has the reason: {}", lines[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_receiver_that_never_responds() {
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = format!("http://{}", receiver.local_addr().expect("an address"));
    let mut installation = traced(&endpoint, "http/protobuf").await;
    installation.set("OTEL_BSP_SCHEDULE_DELAY", "60000");
    let mut api = installation.start("api");
    installation.readiness("api", 200).await;
    let url = format!("http://127.0.0.1:{}/api/v1/aggregates", installation.variable("API_HTTP_PORT"));
    reqwest::get(url).await.expect("a response");
    let begun = Instant::now();
    api.terminate();
    assert_eq!(api.code(PATIENCE).await, 0, "{}", api.stderr());
    // An export may take 10 s, and the stop waits 2 s for it.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(api.stderr().contains("stopping without the export of the last spans"), "{}", api.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_and_replays_keep_the_trace_of_a_message() {
    let receiver = OtlpReceiver::start().await;
    let installation = traced(&receiver.http(), "http/protobuf").await;
    let context: TraceContext = format!("00-{TRACE_ID}-{PARENT_ID}-01").parse().expect("valid");
    let mut record = netagg_core::OutgoingRecord::new("{");
    record.headers = context.to_headers();
    let publisher = netagg_kafka::KafkaPublisher::new(&installation.kafka(), installation.variable("KAFKA_TOPIC"));
    netagg_core::ports::EventPublisher::publish(&publisher.expect("a publisher"), vec![record])
        .await
        .expect("published");
    let _ingestor = installation.start("ingestor");
    eventually(PATIENCE, "the message is a dead letter", async || {
        let dead_letters = installation.dead_letters().await.len();
        if dead_letters == 1 { Ok(()) } else { Err(format!("{dead_letters}")) }
    })
    .await;
    let sent = receiver.span(PATIENCE, "the dead letter is traced", |span| span.name == "send dead letters").await;
    assert_eq!(sent.attributes["messaging.destination.name"], installation.variable("KAFKA_DLQ_TOPIC"));
    let replayed = installation.run("netagg", &["dlq", "replay"]).await;
    assert_eq!(replayed.code, 0, "{}{}", replayed.stdout, replayed.stderr);
    let messages = installation.messages().await;
    let traces: Vec<_> = messages.iter().map(TraceContext::of_record).collect();
    assert_eq!(traces, [Some(context.clone()), Some(context)], "the message and its replay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_variable_is_wrong_usage() {
    let empty = tempfile::NamedTempFile::new().expect("a file");
    for (name, value) in [
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", empty.path().to_str().expect("UTF-8")),
    ] {
        let mut changed = Installation::on("postgres://localhost/none", "127.0.0.1:1", "redis://127.0.0.1:1");
        changed.set("OTEL_TRACES_EXPORTER", "otlp");
        changed.set("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:4318");
        changed.set(name, value);
        for program in ["ingestor", "aggregator", "api", "generator"] {
            let ended = changed.run(program, &[]).await;
            assert_eq!(ended.code, 2, "{program} with {name}={value}: {}", ended.stderr);
            assert!(ended.stderr.contains(name) && ended.stderr.contains(value), "{}", ended.stderr);
        }
    }
}
