//! Replaying dead letters.

use netagg_core::ports::{DeadLetters, EventPublisher, EventSource};
use netagg_core::{Error, Header, OutgoingRecord, PartitionId, RecordPosition};
use netagg_kafka::{
    KafkaConfig, KafkaDeadLetters, KafkaPublisher, KafkaReplay, KafkaSource, KafkaTopics, Replayable, Replayed,
    TopicSpec,
};
use netagg_testkit::{eventually, unique};

use super::dead_letter_reader::{dead_letter, dlq, read as read_all, value};
use super::publisher::noise;
use super::{DEADLINE, create, positions, read};

#[tokio::test]
async fn a_dead_letter_is_sent_like_its_original_record_and_marked_as_sent() {
    let (config, events, dlq) = topics(&[1, 1]).await;
    let mut dead_letters: Vec<_> = (0..4).map(|offset| dead_letter(&events, offset)).collect();
    dead_letters[1].record.value = None;
    dead_letters[2].record.value = Some(bytes::Bytes::new());
    dead_letters[3].record.key = None;
    dead_letters[3].record.headers = vec![Header::new("own", noise(50)), Header::new("own", "twice")];
    KafkaDeadLetters::new(&config, &dlq).unwrap().send(&dead_letters).await.unwrap();

    let replay = KafkaReplay::new(&config, &events, &dlq).unwrap();
    let before = replay.begin().await.unwrap();
    let sent = replayable(&config, &events, &dlq).await;
    assert!(sent.iter().all(|dead_letter| !before.contains(dead_letter.source())));
    replay.send(sent.clone()).await.unwrap();
    let after = next_replay_knows(&config, &events, &dlq).await;
    assert!(sent.iter().all(|dead_letter| after.contains(dead_letter.source())));
    assert!(!after.contains(&RecordPosition { partition: PartitionId::new(&*events, 3), offset: 4 }));

    let group = unique("group");
    let mut source = KafkaSource::new(&config, &group, &events).unwrap();
    let received = read(&mut source, 4).await;
    for (received, dead_letter) in received.iter().zip(&dead_letters) {
        assert_eq!(received.key, dead_letter.record.key);
        assert_eq!(received.value, dead_letter.record.value);
        assert_eq!(received.headers, dead_letter.record.headers);
        assert!(received.instant() > dead_letter.record.instant(), "received now");
    }
    // The marker of the transaction takes an offset, and no reader gets a record with this offset.
    let lag = async || KafkaTopics::new(&config).unwrap().lag(&group, &events).await.unwrap().unwrap().remove(0);
    assert_eq!(lag().await.lag, 5, "before the first commit, all offsets are lag");
    source.commit(&positions(&received)).await.unwrap();
    source.close().await.unwrap();
    let lag = lag().await;
    assert_eq!((lag.committed, lag.high, lag.lag), (Some(4), 5, 0));
}

#[tokio::test]
async fn a_newer_replay_takes_over_from_an_older_replay() {
    let (config, events, dlq) = topics(&[2, 2]).await;
    let dead_letters: Vec<_> = (0..3).map(|offset| dead_letter(&events, offset)).collect();
    KafkaDeadLetters::new(&config, &dlq).unwrap().send(&dead_letters).await.unwrap();
    let mut dead_letters = replayable(&config, &events, &dlq).await;
    let [older, newer] = [0, 1].map(|_| KafkaReplay::new(&config, &events, &dlq).unwrap());
    older.begin().await.unwrap();
    older.send(vec![dead_letters.remove(0)]).await.unwrap();
    let known = newer.begin().await.unwrap();
    assert_eq!(dead_letters.iter().filter(|dead_letter| known.contains(dead_letter.source())).count(), 0);

    let error = older.send(dead_letters.clone()).await.unwrap_err();
    assert!(error.to_string().contains("taken over") && !error.is_retryable(), "{error:?}");
    newer.send(dead_letters).await.unwrap();
    holds(&config, &events, &["no JSON 0", "no JSON 1", "no JSON 2"]).await;
}

#[tokio::test]
async fn two_concurrent_replays_send_each_dead_letter_once() {
    let (config, events, dlq) = topics(&[2, 2]).await;
    let dead_letters: Vec<_> = (0..300).map(|offset| dead_letter(&events, offset)).collect();
    KafkaDeadLetters::new(&config, &dlq).unwrap().send(&dead_letters).await.unwrap();
    let dead_letters = replayable(&config, &events, &dlq).await;
    let [older, newer] = [0, 1].map(|_| KafkaReplay::new(&config, &events, &dlq).unwrap());
    older.begin().await.unwrap();
    let one_by_one = async {
        let mut sent = 0;
        for dead_letter in dead_letters.clone() {
            if older.send(vec![dead_letter]).await.is_err() {
                break;
            }
            sent += 1;
        }
        sent
    };
    let the_rest = async {
        eventually(DEADLINE, "the older replay has sent a dead letter", async || {
            if read_all(&config, &events, None).await.is_empty() { Err("nothing sent".to_owned()) } else { Ok(()) }
        })
        .await;
        let known = newer.begin().await.unwrap();
        let rest: Vec<_> =
            dead_letters.iter().filter(|dead_letter| !known.contains(dead_letter.source())).cloned().collect();
        let count = rest.len();
        newer.send(rest).await.unwrap();
        count
    };
    let (older, newer) = tokio::join!(one_by_one, the_rest);
    assert!(older > 0 && newer > 0, "{older} and {newer}");
    let mut expected: Vec<_> = (0..300).map(|offset| format!("no JSON {offset}")).collect();
    expected.sort();
    holds(&config, &events, &expected).await;
}

#[tokio::test]
async fn either_all_dead_letters_of_a_call_are_sent_or_none() {
    let (config, events, dlq) = topics(&[1, 1]).await;
    create(&config, TopicSpec { max_message_bytes: 10_000, ..TopicSpec::events(format!("{events}-small")) }).await;
    let small = format!("{events}-small");
    let mut dead_letters: Vec<_> = (0..3).map(|offset| dead_letter(&small, offset)).collect();
    dead_letters[1].record.value = Some(noise(50_000).into());
    KafkaDeadLetters::new(&config, &dlq).unwrap().send(&dead_letters).await.unwrap();
    let replay = KafkaReplay::new(&config, &small, &dlq).unwrap();
    replay.begin().await.unwrap();
    let mut dead_letters = replayable(&config, &small, &dlq).await;

    let error = replay.send(dead_letters.clone()).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { .. }) && error.to_string().contains("the dead letter 0:1"), "{error:?}");
    dead_letters.remove(1);
    replay.send(dead_letters.clone()).await.unwrap();
    holds(&config, &small, &["no JSON 0", "no JSON 2"]).await;
    let known = next_replay_knows(&config, &small, &dlq).await;
    assert!(dead_letters.iter().all(|dead_letter| known.contains(dead_letter.source())));
    assert!(!known.contains(&RecordPosition { offset: 1, ..dead_letters[0].source().clone() }));
}

#[tokio::test]
async fn a_dead_letter_can_be_sent_again_after_its_marker_was_deleted() {
    let (config, events, dlq) = topics(&[1, 1]).await;
    KafkaDeadLetters::new(&config, &dlq)
        .unwrap()
        .send(&[dead_letter(&events, 0), dead_letter(&events, 1)])
        .await
        .unwrap();
    let replay = KafkaReplay::new(&config, &events, &dlq).unwrap();
    replay.begin().await.unwrap();
    let dead_letters = replayable(&config, &events, &dlq).await;
    replay.send(dead_letters.clone()).await.unwrap();
    let tombstone = OutgoingRecord { key: Some(format!("{events}/3/0").into()), ..OutgoingRecord::default() };
    KafkaPublisher::new(&config, &format!("{dlq}.replayed")).unwrap().publish(vec![tombstone]).await.unwrap();
    let known = next_replay_knows(&config, &events, &dlq).await;
    assert_eq!(
        dead_letters.iter().map(|dead_letter| known.contains(dead_letter.source())).collect::<Vec<_>>(),
        [false, true]
    );
}

/// A new topic of events and a new dead-letter topic.
async fn topics(partitions: &[i32; 2]) -> (KafkaConfig, String, String) {
    let (config, dlq) = dlq(partitions[1]).await;
    let events = super::topic(&config, partitions[0]).await;
    (config, events, dlq)
}

async fn replayable(config: &KafkaConfig, events: &str, dlq: &str) -> Vec<Replayable> {
    let dead_letters = read_all(config, dlq, None).await.into_iter();
    let mut dead_letters: Vec<_> =
        dead_letters.map(|dead_letter| dead_letter.into_replayable(events).unwrap()).collect();
    dead_letters.sort_by_key(|dead_letter| dead_letter.source().offset);
    dead_letters
}

async fn next_replay_knows(config: &KafkaConfig, events: &str, dlq: &str) -> Replayed {
    KafkaReplay::new(config, events, dlq).unwrap().begin().await.unwrap()
}

/// Waits until the last transaction has ended and readers find the values `expected` in `topic`.
async fn holds(config: &KafkaConfig, topic: &str, expected: &[impl AsRef<str>]) {
    let expected: Vec<_> = expected.iter().map(AsRef::as_ref).collect();
    eventually(DEADLINE, "the sent messages can be read", async || {
        let mut values: Vec<_> = read_all(config, topic, None).await.iter().map(value).collect();
        values.sort();
        if values == expected { Ok(()) } else { Err(format!("{values:?}")) }
    })
    .await;
}
