//! Guarantees of the source beyond the conformance suite of its port.

use std::time::Duration;

use netagg_core::Position;
use netagg_core::ports::{EventPublisher, EventSource, SourceEvent};
use netagg_kafka::{KafkaConfig, KafkaPublisher, KafkaSource, KafkaTopics, TopicSpec};
use netagg_testkit::kafka;
use netagg_testkit::{eventually, unique};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{DEADLINE, Received, config, create, numbers, positions, read, record, topic, with};
use crate::support::kafka::{Transactions, delete_before};
use crate::support::proxy::Proxy;

#[tokio::test]
async fn a_reader_that_pauses_keeps_its_partitions_and_misses_no_record() {
    // A member that does not poll for longer than this loses its partitions.
    let config = with(config().await, &[("session.timeout.ms", "6000"), ("max.poll.interval.ms", "6000")]);
    let topic = topic(&config, 4).await;
    let publisher = KafkaPublisher::new(&config, &topic).unwrap();
    // These are more records than all buffers can hold.
    let count = 40_000;
    for from in (0..count).step_by(5_000) {
        publisher.publish((from..from + 5_000).map(|number| record(number, 1_024)).collect()).await.unwrap();
    }
    let mut source = KafkaSource::new(&config, &unique("group"), &topic).unwrap();
    let mut received = Received::default();
    received.until(&mut source, |received| !received.records.is_empty()).await;

    // The test needs a pause of the reader that is longer than max.poll.interval.ms.
    tokio::time::sleep(Duration::from_secs(9)).await;

    received.until(&mut source, |received| received.records.len() >= count).await;
    assert_eq!(received.revoked.len(), 0, "the source is still a member of the group");
    assert_eq!(numbers(&received.records).len(), count, "each record came once");
    for partition in &received.assigned {
        let offsets: Vec<_> = received.records.iter().filter(|r| r.partition == *partition).map(|r| r.offset).collect();
        assert!(offsets.iter().copied().eq(0..offsets.len() as i64), "in order");
    }
    source.close().await.unwrap();
}

#[tokio::test]
async fn a_source_waits_until_its_topic_is_created() {
    let config = config().await;
    let topic = unique("events");
    let mut source = KafkaSource::new(&config, &unique("group"), &topic).unwrap();
    let health = source.health();
    eventually(DEADLINE, "the problem", async || match health.problem() {
        Some(problem) if problem.reason.contains(&topic) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    create(&config, TopicSpec::events(&topic)).await;
    KafkaPublisher::new(&config, &topic).unwrap().publish(vec![record(1, 0)]).await.unwrap();
    assert_eq!(numbers(&read(&mut source, 1).await).len(), 1);
    assert_eq!(health.assigned().len(), 8);
    eventually(DEADLINE, "ready", async || match health.problem() {
        None => Ok(()),
        problem => Err(format!("{problem:?}")),
    })
    .await;
    source.close().await.unwrap();
    assert_eq!(health.assigned().len(), 0);
    assert!(matches!(source.next().await, Ok(SourceEvent::End)));
    source.close().await.unwrap();
}

#[tokio::test]
async fn positions_are_committed_while_reading_and_by_a_source_that_is_dropped() {
    let config = config().await;
    let (topic, group) = (topic(&config, 1).await, unique("group"));
    let topics = KafkaTopics::new(&config).unwrap();
    let publisher = KafkaPublisher::new(&config, &topic).unwrap();
    publisher.publish((0..100).map(|number| record(number, 0)).collect()).await.unwrap();
    let mut source = KafkaSource::new(&config, &group, &topic).unwrap();
    let records = read(&mut source, 100).await;

    let committed = async |expected: i64| {
        eventually(DEADLINE, "the commit", async || {
            let lag = topics.lag(&group, &topic).await.unwrap().unwrap().remove(0);
            assert_eq!((lag.high, lag.lag), (100, 100 - lag.committed.unwrap_or(0)));
            if lag.committed == Some(expected) { Ok(()) } else { Err(format!("{lag:?}")) }
        })
        .await;
    };
    source.commit(&positions(&records[..40])).await.unwrap();
    committed(40).await;
    source.commit(&positions(&records[..70])).await.unwrap();
    drop(source);
    committed(70).await;

    // The dropped source has left the group. Otherwise the next source would have to wait for the end of its session.
    let mut next = KafkaSource::new(&config, &group, &topic).unwrap();
    assert_eq!(numbers(&read(&mut next, 30).await), (70..100).collect());
    next.close().await.unwrap();
}

#[tokio::test]
async fn positions_of_partitions_that_another_member_has_taken_over_are_not_committed() {
    let config = config().await;
    let (topic, group) = (topic(&config, 4).await, unique("group"));
    let publisher = KafkaPublisher::new(&config, &topic).unwrap();
    publisher.publish((0..400).map(|number| record(number, 0)).collect()).await.unwrap();
    let mut one = KafkaSource::new(&config, &group, &topic).unwrap();
    let mut received = Received::default();
    received.until(&mut one, |received| received.records.len() >= 400).await;

    let mut two = KafkaSource::new(&config, &group, &topic).unwrap();
    received.until(&mut one, |received| !received.revoked.is_empty()).await;
    one.commit(&positions(&received.records)).await.unwrap();
    one.close().await.unwrap();
    let revoked = received.revoked.clone();
    let mut theirs = Received::default();
    theirs.until(&mut two, |theirs| theirs.assigned == received.assigned).await;
    for lag in KafkaTopics::new(&config).unwrap().lag(&group, &topic).await.unwrap().unwrap() {
        let passed_on = revoked.iter().any(|partition| partition.number == lag.number);
        assert_eq!(lag.committed.is_none(), passed_on, "{lag:?} of {revoked:?}");
    }
    // The new owner reads these records again.
    theirs.until(&mut two, |theirs| revoked.iter().all(|p| theirs.records.iter().any(|r| r.partition == *p))).await;
    two.close().await.unwrap();
}

#[tokio::test]
async fn many_rebalances_skip_nothing() {
    let config = config().await;
    let (topic, group) = (topic(&config, 8).await, unique("group"));
    let publisher = KafkaPublisher::new(&config, &topic).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let mut steady = KafkaSource::new(&config, &group, &topic).unwrap();
    for round in 0..4 {
        publisher.publish((round * 500..(round + 1) * 500).map(|number| record(number, 0)).collect()).await.unwrap();
        let mut temporary = KafkaSource::new(&config, &group, &topic).unwrap();
        let mut assignments = 0;
        let reading = async {
            while seen.len() < (round + 1) * 500 || assignments == 0 {
                let (event, is_temporary) = tokio::select! {
                    event = steady.next() => (event.unwrap(), false),
                    event = temporary.next() => (event.unwrap(), true),
                };
                if is_temporary && matches!(event, SourceEvent::Assigned(_)) {
                    assignments += 1;
                }
                if let SourceEvent::Records(records) = event {
                    seen.extend(numbers(&records));
                    let source = if is_temporary { &mut temporary } else { &mut steady };
                    source.commit(&positions(&records)).await.unwrap();
                }
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, reading).await.is_ok();
        assert!(in_time, "round {round}: {} records, {assignments} assignments", seen.len());
        temporary.close().await.unwrap();
    }
    assert_eq!(seen.len(), 2_000);
    steady.close().await.unwrap();
    for lag in KafkaTopics::new(&config).unwrap().lag(&group, &topic).await.unwrap().unwrap() {
        assert_eq!(lag.lag, 0, "{lag:?}");
    }
}

#[tokio::test]
async fn a_position_of_a_partition_never_assigned_is_ignored() {
    let config = config().await;
    let (topic, group) = (topic(&config, 1).await, unique("group"));
    let mut source = KafkaSource::new(&config, &group, &topic).unwrap();
    let mut received = Received::default();
    received.until(&mut source, |received| !received.assigned.is_empty()).await;
    let partition = netagg_core::PartitionId::new(topic.as_str(), 7);
    source.commit(&[Position { partition, next_offset: 3 }]).await.unwrap();
    source.close().await.unwrap();
}

/// Waits until the group has committed up to `end`, the end of the only partition of the topic.
async fn committed_to_the_end(config: &KafkaConfig, group: &str, topic: &str, end: i64) {
    let topics = KafkaTopics::new(config).unwrap();
    eventually(DEADLINE, "no offset is left", async || {
        let lag = topics.lag_in_offsets(group, topic).await.unwrap().unwrap().remove(0);
        if (lag.committed, lag.high, lag.lag) == (Some(end), end, 0) { Ok(()) } else { Err(format!("{lag:?}")) }
    })
    .await;
}

#[tokio::test]
async fn offsets_without_a_record_at_the_end_are_reported_and_can_be_committed() {
    let config = config().await;
    let (topic, group) = (topic(&config, 1).await, unique("group"));
    let transactions = Transactions::new(config.brokers()).await;
    transactions.send(&topic, 0, &["0", "1"]).await;
    transactions.abort().await;
    // The topic has only an aborted transaction: 2 records and a marker.
    let mut source = KafkaSource::new(&config, &group, &topic).unwrap();
    let mut received = Received::default();
    let vacant = |received: &Received| received.vacant.iter().map(|span| (span.from, span.to)).collect::<Vec<_>>();
    received.until(&mut source, |received| !received.vacant.is_empty()).await;
    assert_eq!(vacant(&received), [(0, 3)]);
    let done = |next_offset| Position { partition: netagg_core::PartitionId::new(topic.as_str(), 0), next_offset };
    source.commit(&[done(3)]).await.unwrap();
    committed_to_the_end(&config, &group, &topic, 3).await;

    // A committed transaction follows: a record at offset 3, a marker at 4. A later reader begins after the record.
    transactions.send(&topic, 0, &["3"]).await;
    transactions.commit().await;
    received.until(&mut source, |received| received.vacant.len() > 1).await;
    assert_eq!((received.records.len(), received.records[0].offset, vacant(&received)), (1, 3, vec![(0, 3), (4, 5)]));
    source.commit(&[done(4)]).await.unwrap();
    source.close().await.unwrap();
    let mut source = KafkaSource::new(&config, &group, &topic).unwrap();
    let mut received = Received::default();
    received.until(&mut source, |received| !received.vacant.is_empty()).await;
    assert_eq!((received.records.len(), vacant(&received)), (0, vec![(4, 5)]));
    source.commit(&[done(5)]).await.unwrap();
    committed_to_the_end(&config, &group, &topic, 5).await;

    // A reader that begins before such offsets and finds a record after them also reports them.
    source.close().await.unwrap();
    KafkaPublisher::new(&config, &topic).unwrap().publish(vec![record(5, 0)]).await.unwrap();
    let rewound = unique("group");
    let mut source = KafkaSource::new(&config, &rewound, &topic).unwrap();
    let mut received = Received::default();
    received.until(&mut source, |received| received.records.len() == 2).await;
    assert_eq!(received.records[0].offset, 3);
    source.commit(&[done(4)]).await.unwrap();
    source.close().await.unwrap();
    let mut source = KafkaSource::new(&config, &rewound, &topic).unwrap();
    let mut received = Received::default();
    received.until(&mut source, |received| received.records.len() == 1).await;
    assert_eq!((received.records[0].offset, vacant(&received)), (5, vec![(4, 5)]));
    source.commit(&[done(6)]).await.unwrap();

    // The source waits for an open transaction: its records may still be committed, so they are neither lag nor vacant.
    transactions.send(&topic, 0, &["6"]).await;
    KafkaPublisher::new(&config, &topic).unwrap().publish(vec![record(7, 0)]).await.unwrap();
    let nothing = tokio::time::timeout(std::time::Duration::from_secs(5), source.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    transactions.abort().await;
    received.until(&mut source, |received| received.vacant.len() > 1).await;
    assert_eq!((received.records[1].offset, vacant(&received)), (7, vec![(4, 5), (8, 9)]));
    source.commit(&[done(9)]).await.unwrap();
    committed_to_the_end(&config, &rewound, &topic, 9).await;
    let health = source.health();
    eventually(DEADLINE, "no lag", async || {
        let lag: Vec<_> = health.lag().iter().map(|lag| (lag.events, lag.age)).collect();
        if lag == [(0, Duration::ZERO)] { Ok(()) } else { Err(format!("{lag:?}")) }
    })
    .await;
    assert_eq!(health.commit_age(), Duration::ZERO);
    source.close().await.unwrap();
}

#[tokio::test]
async fn a_consumer_that_hangs_is_replaced() {
    let proxy = Proxy::start(1).await;
    let broker = kafka::Broker::start_advertising(proxy.port()).await;
    proxy.redirect_to(broker.port());
    let config = KafkaConfig::new(format!("127.0.0.1:{}", proxy.port()));
    // Without the replacement, the consumer would wait this long for responses of the broker.
    let patient = with(config.clone(), &[("socket.timeout.ms", "300000"), ("session.timeout.ms", "6000")]);
    let (topic, group) = (topic(&config, 2).await, unique("group"));
    let publisher = KafkaPublisher::new(&config, &topic).unwrap();
    let mut source = KafkaSource::new(&patient, &group, &topic).unwrap();
    let health = source.health();
    publisher.publish((0..100).map(|number| record(number, 0)).collect()).await.unwrap();
    let before = read(&mut source, 100).await;
    source.commit(&positions(&before)).await.unwrap();

    proxy.stall_open();
    let publisher = KafkaPublisher::new(&config, &topic).unwrap();
    publisher.publish((100..200).map(|number| record(number, 0)).collect()).await.unwrap();
    let mut received = Received::default();
    received.until(&mut source, |received| numbers(&received.records).is_superset(&(100..200).collect())).await;
    assert_eq!(health.replaced(), 1);
    assert_eq!(received.revoked, received.assigned, "the source reported that it had lost the partitions for a while");
    eventually(DEADLINE, "ready again", async || match health.problem() {
        None => Ok(()),
        problem => Err(format!("{problem:?}")),
    })
    .await;
    // Commits of the new consumer take effect.
    source.commit(&positions(&received.records)).await.unwrap();
    source.close().await.unwrap();
    for lag in KafkaTopics::new(&config).unwrap().lag_in_offsets(&group, &topic).await.unwrap().unwrap() {
        assert_eq!(lag.lag, 0, "{lag:?}");
    }
    drop(broker);
}

#[tokio::test]
async fn partitions_that_a_rebalance_has_left_without_a_member_are_read_after_a_while() {
    // The session is longer than the test: a member that only stops would keep its partitions.
    let config = with(KafkaConfig::new(kafka::brokers().await), &[("session.timeout.ms", SESSION)]);
    let (topic, group) = (topic(&config, 8).await, unique("group"));
    let [dead, new] = ["dead", "new"].map(|id| with(config.clone(), &[("group.instance.id", id)]));
    let mut newcomer = leave_partitions_without_a_member(&new, &group, &topic).await;
    // The coordinator gives the successor of the dead member the old half of the partitions, without a rebalance.
    let mut successor = KafkaSource::new(&dead, &group, &topic).unwrap();
    eventually(DEADLINE, "half of the partitions have no member", async || {
        let counts = [&successor, &newcomer].map(|source| source.health().assigned().len());
        // On a slow machine, the newcomer may have begun a rebalance already.
        if counts == [4, 0] || newcomer.health().replaced() == 1 { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    KafkaPublisher::new(&config, &topic).unwrap().publish((0..800).map(|n| record(n, 0)).collect()).await.unwrap();

    let (mut one, mut other) = (Received::default(), Received::default());
    let read = async {
        while numbers(&one.records).union(&numbers(&other.records)).count() < 800 {
            tokio::select! {
                event = newcomer.next() => one.take(event.unwrap()),
                event = successor.next() => other.take(event.unwrap()),
            }
        }
    };
    let in_time = tokio::time::timeout(DEADLINE, read).await.is_ok();
    assert!(in_time, "not in time: {:?}, {:?}", newcomer.health(), successor.health());
    let replaced = [&successor, &newcomer].map(|source| source.health().replaced());
    assert_eq!(replaced, [0, 1], "only the member without partitions begins a rebalance");
    // The id of a member begins with its instance id. With this id, a race could decide whether there is a rebalance.
    let observer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", config.brokers()).create().unwrap();
    eventually(DEADLINE, "two members, neither with the instance id of the newcomer", async || {
        let (_, members) = state_and_members(&observer, &group)?;
        let has_left = members.len() == 2 && members.iter().all(|member| !member.starts_with("new-"));
        if has_left { Ok(()) } else { Err(format!("{members:?}")) }
    })
    .await;
    newcomer.close().await.unwrap();
    successor.close().await.unwrap();
}

/// Longer than [`DEADLINE`], in milliseconds.
const SESSION: &str = "600000";

/// Makes a group in which four of eight partitions have no member. This is the state after a static member has died in the middle
/// of a cooperative rebalance: it has not yet given up the partitions that a new member will get. Returns the new member.
async fn leave_partitions_without_a_member(new: &KafkaConfig, group: &str, topic: &str) -> KafkaSource {
    let mut member = ClientConfig::new();
    member.set("bootstrap.servers", new.brokers()).set("group.id", group).set("group.instance.id", "dead");
    member.set("partition.assignment.strategy", "cooperative-sticky");
    member.set("session.timeout.ms", SESSION).set("max.poll.interval.ms", SESSION);
    let member: BaseConsumer = member.create().unwrap();
    member.subscribe(&[topic]).unwrap();
    eventually(DEADLINE, "the first member has all partitions", async || {
        member.poll(Duration::from_millis(10));
        let count = member.assignment().unwrap().count();
        if count == 8 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    let newcomer = KafkaSource::new(new, group, topic).unwrap();
    // The first member takes part in the rebalance. It gives up no partition, because the test polls it no more.
    eventually(DEADLINE, "the rebalance has ended", async || {
        let (state, members) = state_and_members(&member, group)?;
        if state == "Stable" && members.len() == 2 { Ok(()) } else { Err(state) }
    })
    .await;
    // A static member does not leave its group when it ends. librdkafka may never end a consumer that has not answered a rebalance
    // (https://github.com/confluentinc/librdkafka/issues/4884).
    std::thread::spawn(move || drop(member));
    newcomer
}

/// The state of a group, and the ids of its members.
fn state_and_members(consumer: &BaseConsumer, group: &str) -> Result<(String, Vec<String>), String> {
    let groups = consumer.fetch_group_list(Some(group), Duration::from_secs(5)).map_err(|error| error.to_string())?;
    let [found] = groups.groups() else { return Err(format!("{} groups", groups.groups().len())) };
    Ok((found.state().to_owned(), found.members().iter().map(|member| member.id().to_owned()).collect()))
}

#[tokio::test]
async fn offsets_that_were_deleted_before_they_were_read_leave_no_lag() {
    let config = config().await;
    let (topic, group) = (topic(&config, 1).await, unique("group"));
    let publisher = KafkaPublisher::new(&config, &topic).unwrap();
    publisher.publish((0..10).map(|number| record(number, 0)).collect()).await.unwrap();
    let mut source = KafkaSource::new(&config, &group, &topic).unwrap();
    let records = read(&mut source, 10).await;
    source.commit(&positions(&records)).await.unwrap();
    source.close().await.unwrap();
    publisher.publish((10..15).map(|number| record(number, 0)).collect()).await.unwrap();
    delete_before(config.brokers(), &topic, 0, 15).await;

    let mut source = KafkaSource::new(&config, &group, &topic).unwrap();
    let mut received = Received::default();
    received.until(&mut source, |received| !received.vacant.is_empty()).await;
    assert_eq!(received.vacant.iter().map(|span| (span.from, span.to)).collect::<Vec<_>>(), [(10, 15)]);
    assert_eq!((received.records.len(), source.health().deleted_unread()), (0, 5));
    source.commit(&[Position { partition: received.vacant[0].partition.clone(), next_offset: 15 }]).await.unwrap();
    committed_to_the_end(&config, &group, &topic, 15).await;
    source.close().await.unwrap();
}
