#![allow(clippy::all, missing_docs, clippy::unwrap_used, clippy::print_stdout)]
use netagg_core::ports::*;
use netagg_core::*;
use netagg_kafka::*;
use std::time::*;
#[tokio::main]
async fn main() {
    let brokers = std::env::args().nth(1).unwrap();
    let n: usize = std::env::args().nth(2).unwrap().parse().unwrap();
    let per: usize = std::env::args().nth(3).unwrap().parse().unwrap();
    let workers: usize = std::env::args().nth(4).unwrap().parse().unwrap();
    let config = KafkaConfig::new(brokers);
    let topics = KafkaTopics::new(&config).unwrap();
    let topic = format!("bench-{}", std::process::id());
    let t = Instant::now();
    println!("{:?} {:?}", topics.create(&TopicSpec::events(&topic)).await, t.elapsed());
    println!("{:?}", topics.create(&TopicSpec::events(&topic)).await);
    let publisher = std::sync::Arc::new(KafkaPublisher::new(&config, &topic).unwrap());
    let t = Instant::now();
    let mut tasks = vec![];
    for w in 0..workers {
        let p = publisher.clone();
        tasks.push(tokio::spawn(async move {
            let mut sent = 0;
            let mut i = w;
            while sent < n / workers {
                let batch: Vec<_> = (0..per).map(|_| { i += workers; OutgoingRecord {
                    key: Some(format!("{}", i % 1000).into()),
                    value: Some(format!(r#"{{"event_id":"550e8400-e29b-41d4-a716-{:012}","source_id":"provider-1","user_id":"{:09}","type":"CALL_OUT","started_at":"2025-10-20T12:34:56Z","ended_at":"2025-10-20T12:56:00Z","duration_sec":127,"bytes_up":0,"bytes_down":0,"meta":{{"cell":"A1","imei":"{:020}"}}}}"#, i, i % 1000, i * 7919).into()),
                    headers: vec![],
                }}).collect();
                sent += batch.len();
                p.publish(batch).await.unwrap();
            }
        }));
    }
    for t in tasks {
        t.await.unwrap();
    }
    println!("published {n} in {:?}: {:.0}/s", t.elapsed(), n as f64 / t.elapsed().as_secs_f64());
    let d = topics.describe(&topic).await.unwrap().unwrap();
    println!(
        "{} {:?} {:?}",
        d.name,
        d.max_message_bytes,
        d.partitions.iter().map(|p| p.high - p.low).collect::<Vec<_>>()
    );
    let total: i64 = d.partitions.iter().map(|p| p.high - p.low).sum();
    for round in 0..3 {
        let t = Instant::now();
        let mut source = KafkaSource::new(&config, &format!("{topic}-{round}"), &topic).unwrap();
        let mut got = 0;
        let mut first = None;
        let mut chunks = 0;
        let mut positions = std::collections::BTreeMap::new();
        while got < total {
            match source.next().await.unwrap() {
                SourceEvent::Records(r) => {
                    first.get_or_insert_with(Instant::now);
                    got += r.len() as i64;
                    chunks += 1;
                    for r in &r {
                        let e = positions.entry(r.partition.clone()).or_insert(r.offset);
                        assert!(*e == r.offset);
                        *e += 1;
                    }
                }
                other => println!("{:?} {:?}", t.elapsed(), other),
            }
        }
        let e = first.unwrap().elapsed();
        println!(
            "consumed {got} in {e:?} ({:?} with join): {:.0}/s, {chunks} chunks, {:?}",
            t.elapsed(),
            got as f64 / e.as_secs_f64(),
            source.health()
        );
        let p: Vec<_> =
            positions.into_iter().map(|(partition, next_offset)| Position { partition, next_offset }).collect();
        source.commit(&p).await.unwrap();
        let t = Instant::now();
        println!("close {:?} {:?}", source.close().await, t.elapsed());
        println!(
            "lag {:?}",
            topics
                .lag(&format!("{topic}-{round}"), &topic)
                .await
                .unwrap()
                .unwrap()
                .iter()
                .map(|l| l.lag)
                .collect::<Vec<_>>()
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!(
        "{}",
        status.lines().filter(|l| l.starts_with("VmHWM") || l.starts_with("VmRSS")).collect::<Vec<_>>().join(" ")
    );
}
