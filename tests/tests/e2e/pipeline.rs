//! The whole pipeline: from the generator to the responses of the API.

use std::time::Duration;

use netagg_api::proto::usage_service_client::UsageServiceClient;
use netagg_api::proto::{GetGlobalAggRequest, GetUserDetailRequest};
use netagg_testkit::eventually;

use super::installation::{Installation, PATIENCE, figure};

#[tokio::test(flavor = "multi_thread")]
async fn every_sent_event_is_stored_counted_and_returned_by_the_api() {
    let installation = Installation::new().await;
    let mut services = ["ingestor", "aggregator", "api"].map(|name| installation.start(name));
    for service in ["ingestor", "aggregator", "api"] {
        installation.readiness(service, 200).await;
    }
    let mut generator = installation.generator(&[
        ("GENERATOR_EVENTS_PER_SEC", "2000"),
        ("GENERATOR_DURATION", "7s"),
        ("GENERATOR_DUPLICATE_RATE", "0.1"),
        ("GENERATOR_INVALID_RATE", "0.05"),
        ("GENERATOR_VERIFY_INTERVAL", "1s"),
    ]);
    let code = generator.code(PATIENCE).await;
    let report = generator.stdout();
    assert_eq!(code, 0, "{report}\n{}", generator.stderr());
    let sent: i64 = figure(&report, "events_sent").parse().expect("a number");
    assert!(sent > 2_000, "{report}");
    assert_eq!(figure(&report, "events_verified"), sent.to_string());
    assert_eq!(figure(&report, "events_failed"), "0");
    assert_eq!(figure(&report, "success_rate"), "100.00%");
    assert!(figure(&report, "avg_latency").ends_with(" ms"), "{report}");
    assert!(report.matches("events_per_sec: ").count() >= 2, "the figures come every 5 s and at the end: {report}");
    installation.drained_and_exact(sent).await;
    the_api_returns_the_stored_events_and_totals(&installation, sent).await;

    for service in &services {
        service.terminate();
    }
    for service in &mut services {
        assert_eq!(service.code(Duration::from_secs(30)).await, 0, "{}", service.stderr());
    }
}

async fn the_api_returns_the_stored_events_and_totals(installation: &Installation, sent: i64) {
    let pool = installation.pool().await;
    let (user, count, newest): (String, i64, uuid::Uuid) = sqlx::query_as(
        "SELECT user_id, count(*), (array_agg(event_id ORDER BY started_at DESC, source_id, event_id))[1] \
         FROM events_raw WHERE started_at >= '2000-01-01' GROUP BY user_id ORDER BY 2 DESC LIMIT 1",
    )
    .fetch_one(&pool)
    .await
    .expect("a user");

    let (from, to) = ("2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z");
    let path = format!("/api/v1/users/{user}/detail?from={from}&to={to}&limit=7");
    let (status, page) = installation.api(&path).await.expect("a response");
    assert_eq!(status, 200, "{page}");
    assert_eq!(page["total_count"], count);
    assert_eq!(page["items"][0]["event_id"], newest.to_string());
    let mut seen = 0;
    let mut next = page;
    loop {
        seen += next["items"].as_array().expect("items").len() as i64;
        let Some(cursor) = next["next_cursor"].as_str() else { break };
        next = installation.api(&format!("{path}&cursor={cursor}")).await.expect("a response").1;
    }
    assert_eq!(seen, count, "the pages together have all events");

    let mut grpc = UsageServiceClient::connect(format!("http://127.0.0.1:{}", installation.variable("API_GRPC_PORT")))
        .await
        .expect("connected");
    let detail = grpc
        .get_user_detail(GetUserDetailRequest {
            user_id: user,
            from: from.to_owned(),
            to: to.to_owned(),
            limit: 1,
            ..GetUserDetailRequest::default()
        })
        .await
        .expect("a response")
        .into_inner();
    assert_eq!(detail.total_count, count);
    assert_eq!(detail.items[0].event_id, newest.to_string());

    // Readers see the last commits of the aggregator within a second. The range is explicit, because the default range does not
    // contain the oldest events.
    let range = "granularity=DAY&from=2020-01-01&to=2029-12-28";
    let http_rows = eventually(PATIENCE, "the totals are complete", async || {
        let (_, answer) = installation.api(&format!("/api/v1/aggregates?{range}")).await?;
        let rows = answer["data"].as_array().cloned().ok_or_else(|| answer.to_string())?;
        let sum: i64 = rows.iter().filter_map(|row| row["count_events"].as_i64()).sum();
        if sum == sent { Ok(rows) } else { Err(format!("{sum} of {sent}")) }
    })
    .await;
    let rows = grpc
        .get_global_agg(GetGlobalAggRequest {
            granularity: "DAY".to_owned(),
            from: "2020-01-01".to_owned(),
            to: "2029-12-28".to_owned(),
            r#type: String::new(),
            ..GetGlobalAggRequest::default()
        })
        .await
        .expect("a response")
        .into_inner()
        .data;
    assert_eq!(rows.len(), http_rows.len());
    for (grpc, http) in rows.iter().zip(&http_rows) {
        assert_eq!(http["date"], grpc.date);
        assert_eq!(http["type"], grpc.r#type);
        assert_eq!(http["count_events"], grpc.count_events);
        assert_eq!(http["sum_duration"], grpc.sum_duration);
        assert_eq!(http["sum_bytes_up"], grpc.sum_bytes_up);
        assert_eq!(http["sum_bytes_down"], grpc.sum_bytes_down);
    }
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_services_continue_exactly_where_they_stopped() {
    let installation = Installation::new().await;
    let mut ingestors = [installation.start("ingestor"), installation.another("ingestor")];
    let mut aggregators = [installation.start("aggregator"), installation.another("aggregator")];
    let pool = installation.pool().await;
    let mut stored = 0_i64;
    let mut generators = Vec::new();
    for round in 0..4 {
        // Each round has its own generator, so each round has events, however long the earlier rounds took.
        generators.push(installation.generator(&[
            ("GENERATOR_EVENTS_PER_SEC", "3000"),
            ("GENERATOR_DURATION", "3s"),
            ("GENERATOR_DUPLICATE_RATE", "0.2"),
        ]));
        // The kill must happen in the middle of work. This is the case when more events were stored since the last kill.
        stored = eventually(PATIENCE, "more events are stored", async || {
            let count: i64 = sqlx::query_scalar("SELECT count(*) FROM events_raw")
                .fetch_one(&pool)
                .await
                .map_err(|error| error.to_string())?;
            if count > stored { Ok(count) } else { Err(count.to_string()) }
        })
        .await;
        let at = round % 2;
        ingestors[at].kill();
        aggregators[at].kill();
        ingestors[at].wait(PATIENCE).await;
        aggregators[at].wait(PATIENCE).await;
        let start = |name| if at == 0 { installation.start(name) } else { installation.another(name) };
        ingestors[at] = start("ingestor");
        aggregators[at] = start("aggregator");
    }
    let mut sent = 0;
    for mut generator in generators {
        let code = generator.code(PATIENCE).await;
        assert_eq!(code, 0, "{}\n{}", generator.stdout(), generator.stderr());
        sent += figure(&generator.stdout(), "events_sent").parse::<i64>().expect("a number");
    }
    installation.drained_and_exact(sent).await;
}
