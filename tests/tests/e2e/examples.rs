//! The examples, run as programs. The module `embed` tests the examples that embed the whole pipeline.

use std::time::Duration;

use netagg_testkit::{eventually, postgres};

use super::installation::{PATIENCE, ended};
use crate::support::programs::Process;

/// Runs an example to its end, and returns its output.
async fn output(example: &str, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let variables = variables.iter().copied();
    let ended = ended(Process::start(&format!("examples/{example}"), arguments, variables)).await;
    assert_eq!(ended.code, 0, "{example}: {}", ended.stderr);
    ended.stdout
}

#[tokio::test]
async fn examples_without_servers_run() {
    for (example, expected) in [
        ("custom_cache", "the cache passes the test suite of the port\nnorth: 3 events\nsouth: 5 events\n"),
        ("custom_source", "0 lines processed, 0 events stored\n"),
        ("custom_store", "600 records: 500 counted, 100 duplicates\n"),
        ("decode_csv", "CALL_OUT: 2 calls, 90 s\n"),
        ("embed_in_memory", "1102 records: 1000 events, 100 duplicates, 2 invalid\n"),
        ("tracing", "\nprocess events.telecom: 1 links\n"),
        ("metrics", "\nnetagg_duplicates_total{service=\"aggregator\"} 100\n"),
    ] {
        let output = output(example, &[], &[]).await;
        assert!(output.contains(expected), "{example}: {output}");
    }
}

#[tokio::test]
async fn the_example_of_a_custom_source_names_invalid_lines() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let event = netagg_core::testkit::event(netagg_core::testkit::EventTemplate::default()).encode();
    let lines = [&event[..], b"\xff no text", &event[..], b""].join(&b'\n');
    std::fs::write(file.path(), lines).expect("written");
    let output = output("custom_source", &[file.path().to_str().expect("a path")], &[]).await;
    let lines: Vec<_> = output.lines().collect();
    assert!(lines[0].contains(":2: "), "{output}");
    assert_eq!(lines[1..], ["2025-10-20 CALL_OUT: 1 events, 60 s", "3 lines processed, 1 events stored"], "{output}");
}

#[tokio::test]
async fn the_metrics_of_two_services_have_different_labels() {
    let output = output("metrics", &[], &[]).await;
    for part in [
        "# HELP netagg_events_stored_total Events newly stored",
        "\nnetagg_events_consumed_total{service=\"ingestor\"} 601\n",
        "\nnetagg_events_consumed_total{service=\"aggregator\"} 601\n",
        "\nnetagg_retries_total{service=\"aggregator\",dependency=\"redis\"} 0\n",
        "netagg_batch_duration_seconds_bucket{service=\"ingestor\",le=\"0.005\"}",
        "netagg_batch_records_bucket{service=\"aggregator\",le=\"1000\"}",
    ] {
        assert!(output.contains(part), "{part} in {output}");
    }
}

#[tokio::test]
async fn the_example_with_postgres_stores_and_counts() {
    let database = postgres::database().await;
    for run in 1..=2 {
        let output = output("embed_with_postgres", &[], &[("DATABASE_URL", database.url())]).await;
        assert!(output.starts_with("1000 events stored, 1000 counted\n"), "{output}");
        // Midnight may be between the runs, so the counts of all days are added.
        let counts = output.lines().filter_map(|line| line.split_once(": ")?.1.split(' ').next()?.parse::<u64>().ok());
        assert_eq!(counts.sum::<u64>(), run * 1_000, "{output}");
    }
}

#[tokio::test]
async fn the_example_of_a_server_with_middleware_requires_api_keys() {
    let process = Process::start("examples/auth", [""; 0], [("HTTP_ADDRESS", "127.0.0.1:0")]);
    let command = eventually(PATIENCE, "the example prints a command", async || {
        process.stdout().lines().next().map(str::to_owned).ok_or_else(|| process.stderr())
    })
    .await;
    let quoted: Vec<_> = command.split('\'').collect();
    let (authorization, url) = (quoted[1].strip_prefix("Authorization: ").expect("a header"), quoted[3]);
    let client = reqwest::Client::new();
    let ask = async |url: &str, authorization: Option<&str>| {
        let mut request = client.get(url).timeout(Duration::from_secs(60));
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        let response = request.send().await.expect("a response");
        let served_by = response.headers().get("x-served-by").map(|name| name.as_bytes().to_vec());
        assert_eq!(served_by.as_deref(), Some(&b"my application"[..]), "{url}");
        response.status().as_u16()
    };
    eventually(PATIENCE, "the key is known", async || match ask(url, Some(authorization)).await {
        200 => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
    assert_eq!(ask(url, None).await, 401);
    let (address, _) = url.split_once("/usage/").expect("a mounted path");
    let detail = format!("{address}/usage/api/v1/users/user-1/detail");
    assert_eq!(ask(&detail, Some(authorization)).await, 403, "the key is only for totals");
    assert_eq!(ask(address, None).await, 200, "routes beside the API stay open");
}
