//! Messages of the largest size are stored, counted and returned within the memory limit of a service.

use bytes::Bytes;
use h2::RecvStream;
use netagg_api::proto::GetUserDetailRequest;
use netagg_core::OutgoingRecord;
use netagg_core::ports::EventPublisher;
use netagg_core::testkit::{EventTemplate, event};
use netagg_kafka::{KafkaConfig, KafkaPublisher};

use super::installation::Installation;
use crate::support::grpc::{self, Channel};
use crate::support::programs::Process;

const MESSAGES: u128 = 250;
/// The memory limit of each service, from the contract.
const MAX_RESIDENT_KIB: u64 = 256 * 1_024;

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_1_mib_messages_is_stored_and_returned_within_256_mib() {
    let installation = Installation::new().await;
    let config = KafkaConfig::new(installation.variable("KAFKA_BROKERS"));
    let publisher = KafkaPublisher::new(&config, installation.variable("KAFKA_TOPIC")).expect("a publisher");
    for id in 0..MESSAGES {
        // The text can hardly be compressed, so the message is large in every component.
        let text: String = (0..(1 << 20) / 32 - 16).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
        let meta = format!(r#"{{"text":"{text}"}}"#);
        let value = event(EventTemplate { id, meta: Some(&meta), ..EventTemplate::default() }).encode();
        let key = Some(Bytes::from(id.to_string()));
        publisher
            .publish(vec![OutgoingRecord { key, value: Some(value.into()), headers: Vec::new() }])
            .await
            .expect("published");
    }
    let services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    installation.drained_and_exact(MESSAGES as i64).await;
    for service in &services {
        expect_bounded(service);
    }
    drop(services);

    let api = installation.start("api");
    installation.readiness("api", 200).await;
    let responses = request_without_reading(installation.variable("API_GRPC_PORT").parse().expect("a port")).await;
    expect_bounded(&api);
    // A client that reads its response still gets it.
    let path = "/api/v1/users/user-1/detail?from=2025-10-01T00:00:00Z&to=2025-11-01T00:00:00Z";
    let (status, page) = installation.api(path).await.expect("a response");
    assert_eq!((status, page["items"].as_array().map(Vec::len)), (200, Some(3)));
    expect_bounded(&api);
    drop(responses);
}

/// Requests many pages of the largest size on several connections, and lets the server send at most a byte of each response.
/// The returned streams keep the responses open.
async fn request_without_reading(port: u16) -> Vec<RecvStream> {
    let (mut open, mut rejected) = (Vec::new(), 0);
    for _ in 0..8 {
        let channel = Channel::open(port, 1).await;
        for call in 0..20 {
            let request = GetUserDetailRequest {
                user_id: "user-1".to_owned(),
                from: "2025-10-01T00:00:00Z".to_owned(),
                to: "2025-11-01T00:00:00Z".to_owned(),
                // Each call on a connection has another limit, so its page is not cached yet.
                limit: 10 + call,
                ..GetUserDetailRequest::default()
            };
            let response = channel.ask("/telecom.v1.UsageService/GetUserDetail", grpc::frame(&request)).await;
            let response = response.expect("a response");
            // The response of a rejected call has only headers.
            if response.headers().contains_key("grpc-status") {
                rejected += 1;
            } else {
                open.push(response.into_body());
            }
        }
    }
    assert!(open.len() >= 8 && rejected >= 8, "{} open, {rejected} rejected", open.len());
    open
}

fn expect_bounded(service: &Process) {
    let resident = most_resident_kib(service);
    assert!(resident < MAX_RESIDENT_KIB, "{resident} KiB");
}

/// The peak resident memory of the process.
fn most_resident_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
