//! The delay until an event is in the totals that the API serves, and the processor time for a topic with little load.

use std::time::{Duration, Instant};

use netagg_core::OutgoingRecord;
use netagg_core::ports::EventPublisher;
use netagg_core::testkit::{EventTemplate, event};
use netagg_kafka::{KafkaConfig, KafkaPublisher};

use crate::contender::Contender;
use crate::programs::Process;
use crate::{Servers, run};

/// The number of events whose delay is measured.
const PROBES: u32 = 300;
/// The pause between two requests for the totals, so the resolution of the delay.
const PAUSE: Duration = Duration::from_millis(3);
/// A day that only these events have.
const DAY: &str = "2024-02-29";
const QUIET: Duration = Duration::from_secs(20);

/// Measures for each mode the delay of events at 5,000 events per second, and the processor time at 100 events per second.
pub(super) async fn measure(servers: &Servers) {
    println!(
        "\nFreshness of the served totals at 5,000 events per second, and processor time at 100 events per second"
    );
    println!("| mode | median | p99 | slowest | CPU of each service |");
    println!("|---|---|---|---|---|");
    for contender in [Contender::Separate, Contender::Combined] {
        let topic = format!("events.fresh.{}", contender.name().replace(' ', "."));
        let variables = servers.variables(&servers.database("bench").await, &topic, &topic);
        run("netagg", &["migrate", "up"], variables.clone()).await;
        run("netagg", &["topic", "create"], variables.clone()).await;
        let services = contender.start(&variables, &servers.traces.http());
        let api = Process::start("api", [""; 0], variables.clone());
        let publisher = KafkaPublisher::new(&KafkaConfig::new(servers.broker.brokers()), &topic).expect("a publisher");
        let generator = generate(&variables, "5000");
        // The first event waits until the services have their partitions, so its delay does not count.
        follow(&publisher, 0).await;
        let mut delays = Vec::new();
        for probe in 1..=PROBES {
            delays.push(follow(&publisher, probe).await);
        }
        delays.sort();
        drop(generator);
        let generator = generate(&variables, "100");
        tokio::time::sleep(Duration::from_secs(5)).await;
        let before: Vec<f64> = services.iter().map(crate::contender::Running::cpu_seconds).collect();
        tokio::time::sleep(QUIET).await;
        let shares = services.iter().zip(before).map(|(service, before)| {
            format!("{:.1} %", (service.cpu_seconds() - before) / QUIET.as_secs_f64() * 100.0)
        });
        let shares = shares.collect::<Vec<_>>().join(" + ");
        let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize].as_millis();
        println!("| {} | {} ms | {} ms | {} ms | {shares} |", contender.name(), at(0.5), at(0.99), at(1.0));
        drop((generator, api));
        for service in services {
            service.stop().await;
        }
    }
}

fn generate(variables: &[(&'static str, String)], rate: &str) -> Process {
    let load = [("GENERATOR_EVENTS_PER_SEC", rate.to_owned()), ("GENERATOR_DURATION", "0".to_owned())];
    Process::start("generator", [""; 0], variables.iter().cloned().chain(load))
}

/// Sends an event, and waits until the totals of its day contain it. Returns the delay.
async fn follow(publisher: &KafkaPublisher, probe: u32) -> Duration {
    let started_at = format!("{DAY}T12:00:00Z");
    let event = event(EventTemplate { id: u128::from(probe) + 1, started_at: &started_at, ..EventTemplate::default() });
    let begun = Instant::now();
    publisher.publish(vec![OutgoingRecord::new(event.encode())]).await.expect("published");
    let url = format!("http://127.0.0.1:18000/api/v1/aggregates?granularity=DAY&from={DAY}&to={DAY}");
    loop {
        if let Ok(answer) = reqwest::get(&url).await
            && let Ok(text) = answer.text().await
            && let Ok(answer) = serde_json::from_str::<serde_json::Value>(&text)
            && answer["data"][0]["count_events"].as_u64() > Some(u64::from(probe))
        {
            let delay = begun.elapsed();
            // The next event must arrive at another time within its batch.
            tokio::time::sleep(Duration::from_millis(u64::from(probe * 7 % 50))).await;
            return delay;
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "an event is not counted");
        tokio::time::sleep(PAUSE).await;
    }
}
