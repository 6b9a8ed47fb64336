//! Messages of the largest size: taken, and within the memory a service may use.

use bytes::Bytes;
use netagg_core::OutgoingRecord;
use netagg_core::ports::EventPublisher;
use netagg_core::testkit::{EventTemplate, event};
use netagg_kafka::{KafkaConfig, KafkaPublisher};
use netagg_tests::programs::Process;

use super::installation::Installation;

const MESSAGES: u128 = 250;
/// The contract's bound for each service.
const MAX_RESIDENT_KIB: u64 = 256 * 1_024;

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_1_mib_messages_is_taken_within_256_mib() {
    let installation = Installation::new().await;
    let config = KafkaConfig::new(installation.variable("KAFKA_BROKERS"));
    let publisher = KafkaPublisher::new(&config, installation.variable("KAFKA_TOPIC")).expect("a publisher");
    for id in 0..MESSAGES {
        // Hardly compressible, so that it is large everywhere.
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
        let resident = most_resident_kib(service);
        assert!(resident < MAX_RESIDENT_KIB, "{resident} KiB");
    }
}

/// The most memory that the process has had resident.
fn most_resident_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
