//! `netagg demo`: the demonstration, which needs no server.

use std::io::Write;

use netagg_core::testkit::{EventTemplate, event};
use netagg_testkit::{Port, eventually};

use super::installation::PATIENCE;
use crate::support::programs::Process;

fn demo(arguments: &[&str]) -> Process {
    Process::start("netagg", [&["demo"], arguments].concat(), [("", ""); 0])
}

#[tokio::test]
async fn the_demo_prints_tables_and_verifies_them() {
    let mut demo = demo(&["--events", "20000"]);
    let code = demo.code(PATIENCE).await;
    let shown = demo.stdout();
    assert_eq!(code, 0, "{shown}\n{}", demo.stderr());
    for part in ["day", "month", "SMS_RECEIVED", "20000 events stored", "Verified: every event sent is stored once"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(shown.contains("--serve") && shown.contains("--input"), "the output names commands to try next: {shown}");
}

#[tokio::test]
async fn the_demo_reads_events_from_a_file_and_reports_invalid_lines() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let line = |id| String::from_utf8(event(EventTemplate { id, ..EventTemplate::default() }).encode()).expect("UTF-8");
    writeln!(file, "{}\nnot JSON\n\n{}\n{}", line(1), line(2), line(1)).expect("written");
    writeln!(file, "{}", line(3).replace("CALL_OUT", "FAX")).expect("written");
    let mut demo = demo(&["--input", file.path().to_str().expect("a path")]);
    let code = demo.code(PATIENCE).await;
    let (shown, errors) = (demo.stdout(), demo.stderr());
    assert_eq!(code, 0, "{shown}\n{errors}");
    assert!(shown.contains("2 events stored, 1 duplicates dropped") && shown.contains("Verified"), "{shown}");
    assert!(shown.contains("2025-10-20"), "{shown}");
    let is_reported = |line: &str| errors.contains(line);
    assert!(is_reported(":2: left out: malformed_json") && is_reported(":6: left out: unknown_type"), "{errors}");
    assert!(is_reported("type: found \"FAX\"; accepted: CALL_OUT"), "{errors}");
}

#[tokio::test]
async fn a_missing_file_is_wrong_usage() {
    let mut demo = demo(&["--input", "/no/such/file"]);
    assert_eq!(demo.code(PATIENCE).await, 2);
    assert!(demo.stderr().contains("/no/such/file"), "{}", demo.stderr());
}

#[tokio::test]
async fn demo_serve_keeps_the_api_running_and_sends_more_events() {
    let reserved = [Port::reserve(), Port::reserve()];
    let [http, grpc] = reserved.each_ref().map(|port| port.number().to_string());
    let variables = [("API_HTTP_PORT", &http), ("API_GRPC_PORT", &grpc)];
    let mut demo = Process::start("netagg", ["demo", "--events", "1000", "--serve"], variables);
    let url = format!("http://127.0.0.1:{http}/api/v1/aggregates?granularity=MONTH&from=2020-01-01&to=2029-12-28");
    eventually(PATIENCE, "more events are counted than were sent at first", async || {
        let response = reqwest::get(&url).await.map_err(|error| error.to_string())?;
        let text = response.text().await.map_err(|error| error.to_string())?;
        let body: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let rows = body["data"].as_array().ok_or_else(|| text.clone())?;
        let sum: i64 = rows.iter().filter_map(|row| row["count_events"].as_i64()).sum();
        if sum > 1_000 { Ok(()) } else { Err(text) }
    })
    .await;
    demo.terminate();
    assert_eq!(demo.code(PATIENCE).await, 0, "{}", demo.stderr());
}
