//! The examples that embed netagg, such as a process that does the work of all three services with the library crates.

use std::time::Duration;

use netagg_api::proto::GetGlobalAggRequest;
use netagg_api::proto::usage_service_client::UsageServiceClient;
use netagg_core::Timestamp;
use netagg_core::ports::{Clock, SystemClock};
use netagg_testkit::{eventually, kafka, postgres, redis};

use super::installation::{Installation, PATIENCE};

const RANGE: &str = "granularity=DAY&from=2020-01-01&to=2029-12-28";

/// An installation without schema and topics, with the variables of the example.
async fn installation(database: &postgres::Database) -> Installation {
    let mut installation = Installation::on(database.url(), &kafka::brokers().await, &redis::url().await);
    let addresses =
        [("HTTP_ADDRESS", "API_HTTP_PORT"), ("GRPC_ADDRESS", "API_GRPC_PORT"), ("OPS_ADDRESS", "PPROF_PORT_INGESTOR")];
    for (address, port) in addresses {
        let port = format!("127.0.0.1:{}", installation.variable(port));
        installation.set(address, &port);
    }
    // The example uses these groups.
    installation.set("KAFKA_GROUP_ID_INGESTOR", "ingestor-group");
    installation.set("KAFKA_GROUP_ID_AGGREGATOR", "aggregator-group");
    installation
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_does_the_work_of_three_services() {
    let database = postgres::database().await;
    let installation = installation(&database).await;
    let mut process = installation.start("examples/embed_everything");
    // The process creates schema, partitions and topics by itself.
    installation.readiness_without(&["postgres", "redis", "ingestor", "aggregator", "partitions"], "ingestor").await;

    let sent = installation.load().await;
    let loaded = SystemClock.now();
    let answer = eventually(PATIENCE, "the totals are complete", async || {
        let (status, answer) = installation.api(&format!("/api/v1/aggregates?{RANGE}")).await?;
        let through = answer["complete_through"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
        if status == 200 && through >= Some(loaded) { Ok(answer) } else { Err(answer.to_string()) }
    })
    .await;
    let counts = answer["data"].as_array().into_iter().flatten().filter_map(|row| row["count_events"].as_i64());
    assert_eq!(counts.sum::<i64>(), sent);
    let url = format!("http://127.0.0.1:{}", installation.variable("API_GRPC_PORT"));
    let mut client = UsageServiceClient::connect(url).await.expect("the gRPC port");
    let request = GetGlobalAggRequest { granularity: "MONTH".to_owned(), ..Default::default() };
    assert!(!client.get_global_agg(request).await.expect("a response").into_inner().data.is_empty());
    installation.drained_and_exact(sent).await;

    let offsets = installation.offsets().await;
    for service in ["ingestor", "aggregator"] {
        let consumed = format!("\nnetagg_events_consumed_total{{service=\"{service}\"}} {offsets}\n");
        eventually(PATIENCE, &consumed, async || {
            let (_, metrics) = installation.ops("ingestor", "/metrics").await?;
            if metrics.contains(&consumed) { Ok(()) } else { Err(metrics) }
        })
        .await;
    }
    let (_, metrics) = installation.ops("ingestor", "/metrics").await.expect("metrics");
    for part in [
        "# HELP netagg_events_stored_total Events newly stored",
        &format!("\nnetagg_events_stored_total {sent}\n"),
        &format!("\nnetagg_events_aggregated_total {sent}\n"),
        // The example of metrics shows the number 0. Here a call of Redis may exceed its 100 ms on a slow machine, and is retried.
        "\nnetagg_retries_total{service=\"aggregator\",dependency=\"redis\"} ",
        "\nnetagg_dependency_up{dependency=\"partitions\"} 1\n",
        "\nnetagg_db_pool_connections{state=\"max\"} 10\n",
        "\nnetagg_events_set_aside 0\n",
        "netagg_batch_duration_seconds_bucket{service=\"ingestor\",le=\"0.005\"}",
        "netagg_consumer_lag_records{service=\"aggregator\",topic=",
    ] {
        assert!(metrics.contains(part), "{part} in {metrics}");
    }
    let partitions: i64 =
        installation.value("SELECT count(*) FROM pg_inherits WHERE inhparent = 'events_raw'::regclass").await;
    assert!(partitions >= 4, "the partitions of this month and of three more months: {partitions}");

    process.terminate();
    assert_eq!(process.code(Duration::from_secs(30)).await, 0, "{}", process.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_waits_for_its_servers_is_unready_and_can_be_stopped() {
    let database = postgres::database().await;
    let mut installation = installation(&database).await;
    installation.set("DATABASE_URL", "postgres://no_role:none@127.0.0.1:1/none");
    let mut process = installation.start("examples/embed_everything");
    let report = installation.readiness("ingestor", 503).await;
    assert!(report["dependencies"]["postgres"].is_string(), "{report}");
    process.terminate();
    assert_eq!(process.code(Duration::from_secs(30)).await, 0, "{}", process.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_can_embed_two_separate_pipelines() {
    let databases = [postgres::database().await, postgres::database().await];
    let (brokers, redis) = (kafka::brokers().await, redis::url().await);
    let installations =
        databases.each_ref().map(|database| Installation::on(database.url(), &brokers, redis.trim_end_matches('/')));
    let [first, second] = &installations;
    let mut process = {
        let mut variables = Installation::on(databases[0].url(), &brokers, &redis);
        for (name, cache, installation) in [("FIRST", 0, first), ("SECOND", 1, second)] {
            for variable in ["DATABASE_URL", "KAFKA_TOPIC"] {
                variables.set(&format!("{name}_{variable}"), installation.variable(variable));
            }
            variables.set(&format!("{name}_REDIS_URL"), &format!("{}/{cache}", installation.variable("REDIS_URL")));
            let address = format!("127.0.0.1:{}", installation.variable("API_HTTP_PORT"));
            variables.set(&format!("{name}_HTTP_ADDRESS"), &address);
        }
        variables.start("examples/embed_twice")
    };
    for installation in &installations {
        let path = "/api/v1/aggregates?granularity=DAY";
        eventually(PATIENCE, "the API responds", async || installation.api(path).await).await;
    }

    // Each API has the totals of its own topic.
    for installation in &installations {
        let sent = installation.load().await;
        installation.drained_and_exact(sent).await;
        eventually(PATIENCE, "the API has the totals", async || {
            let (_, answer) = installation.api(&format!("/api/v1/aggregates?{RANGE}")).await?;
            let counts = answer["data"].as_array().into_iter().flatten().filter_map(|row| row["count_events"].as_i64());
            if counts.sum::<i64>() == sent { Ok(()) } else { Err(answer.to_string()) }
        })
        .await;
    }
    process.terminate();
    assert_eq!(process.code(PATIENCE).await, 0, "{}", process.stderr());
}
