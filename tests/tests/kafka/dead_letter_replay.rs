//! Dead letters sent again.

use netagg_core::ports::{DeadLetters, EventPublisher, EventSource};
use netagg_core::{Error, Header, OutgoingRecord, PartitionId, Place};
use netagg_kafka::{
    KafkaConfig, KafkaDeadLetters, KafkaPublisher, KafkaReplay, KafkaSource, KafkaTopics, Replayable, Replayed,
    TopicSpec,
};
use netagg_testkit::{eventually, unique};

use super::dead_letter_reader::{dlq, letter, read as read_all, value};
use super::publisher::noise;
use super::{DEADLINE, create, positions, read};

#[tokio::test]
async fn a_letter_is_sent_as_its_record_was_and_remembered() {
    let (config, events, dlq) = topics(&[1, 1]).await;
    let mut letters: Vec<_> = (0..4).map(|offset| letter(&events, offset)).collect();
    letters[1].record.value = None;
    letters[2].record.value = Some(bytes::Bytes::new());
    letters[3].record.key = None;
    letters[3].record.headers = vec![Header::new("own", noise(50)), Header::new("own", "twice")];
    KafkaDeadLetters::new(&config, &dlq).unwrap().send(&letters).await.unwrap();

    let replay = KafkaReplay::new(&config, &events, &dlq).unwrap();
    let before = replay.begin().await.unwrap();
    let sent = replayable(&config, &events, &dlq).await;
    assert!(sent.iter().all(|letter| !before.contains(letter.source())));
    replay.send(sent.clone()).await.unwrap();
    let after = next_replay_knows(&config, &events, &dlq).await;
    assert!(sent.iter().all(|letter| after.contains(letter.source())));
    assert!(!after.contains(&Place { partition: PartitionId::new(&*events, 3), offset: 4 }));

    let group = unique("group");
    let mut source = KafkaSource::new(&config, &group, &events).unwrap();
    let received = read(&mut source, 4).await;
    for (received, letter) in received.iter().zip(&letters) {
        assert_eq!(received.key, letter.record.key);
        assert_eq!(received.value, letter.record.value);
        assert_eq!(received.headers, letter.record.headers);
        assert!(received.instant() > letter.record.instant(), "received now");
    }
    // The transaction's mark is an offset that no reader ever gets past.
    let lag = async || KafkaTopics::new(&config).unwrap().lag(&group, &events).await.unwrap().unwrap().remove(0);
    assert_eq!(lag().await.lag, 5, "all, before the first commit");
    source.commit(&positions(&received)).await.unwrap();
    source.close().await.unwrap();
    let lag = lag().await;
    assert_eq!((lag.committed, lag.high, lag.lag), (Some(4), 5, 0));
}

#[tokio::test]
async fn the_newer_replay_takes_over() {
    let (config, events, dlq) = topics(&[2, 2]).await;
    let letters: Vec<_> = (0..3).map(|offset| letter(&events, offset)).collect();
    KafkaDeadLetters::new(&config, &dlq).unwrap().send(&letters).await.unwrap();
    let mut letters = replayable(&config, &events, &dlq).await;
    let [older, newer] = [0, 1].map(|_| KafkaReplay::new(&config, &events, &dlq).unwrap());
    older.begin().await.unwrap();
    older.send(vec![letters.remove(0)]).await.unwrap();
    let known = newer.begin().await.unwrap();
    assert_eq!(letters.iter().filter(|letter| known.contains(letter.source())).count(), 0);

    let error = older.send(letters.clone()).await.unwrap_err();
    assert!(error.to_string().contains("taken over") && !error.is_retryable(), "{error:?}");
    newer.send(letters).await.unwrap();
    holds(&config, &events, &["no JSON 0", "no JSON 1", "no JSON 2"]).await;
}

#[tokio::test]
async fn two_at_once_send_each_letter_once() {
    let (config, events, dlq) = topics(&[2, 2]).await;
    let letters: Vec<_> = (0..300).map(|offset| letter(&events, offset)).collect();
    KafkaDeadLetters::new(&config, &dlq).unwrap().send(&letters).await.unwrap();
    let letters = replayable(&config, &events, &dlq).await;
    let [older, newer] = [0, 1].map(|_| KafkaReplay::new(&config, &events, &dlq).unwrap());
    older.begin().await.unwrap();
    let one_by_one = async {
        let mut sent = 0;
        for letter in letters.clone() {
            if older.send(vec![letter]).await.is_err() {
                break;
            }
            sent += 1;
        }
        sent
    };
    let the_rest = async {
        eventually(DEADLINE, "the older one is at work", async || {
            if read_all(&config, &events, None).await.is_empty() { Err("nothing sent".to_owned()) } else { Ok(()) }
        })
        .await;
        let known = newer.begin().await.unwrap();
        let rest: Vec<_> = letters.iter().filter(|letter| !known.contains(letter.source())).cloned().collect();
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
async fn all_letters_of_a_call_are_sent_or_none() {
    let (config, events, dlq) = topics(&[1, 1]).await;
    create(&config, TopicSpec { max_message_bytes: 10_000, ..TopicSpec::events(format!("{events}-small")) }).await;
    let small = format!("{events}-small");
    let mut letters: Vec<_> = (0..3).map(|offset| letter(&small, offset)).collect();
    letters[1].record.value = Some(noise(50_000).into());
    KafkaDeadLetters::new(&config, &dlq).unwrap().send(&letters).await.unwrap();
    let replay = KafkaReplay::new(&config, &small, &dlq).unwrap();
    replay.begin().await.unwrap();
    let mut letters = replayable(&config, &small, &dlq).await;

    let error = replay.send(letters.clone()).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { .. }) && error.to_string().contains("the letter 0:1"), "{error:?}");
    letters.remove(1);
    replay.send(letters.clone()).await.unwrap();
    holds(&config, &small, &["no JSON 0", "no JSON 2"]).await;
    let known = next_replay_knows(&config, &small, &dlq).await;
    assert!(letters.iter().all(|letter| known.contains(letter.source())));
    assert!(!known.contains(&Place { offset: 1, ..letters[0].source().clone() }));
}

#[tokio::test]
async fn a_mark_can_be_taken_back() {
    let (config, events, dlq) = topics(&[1, 1]).await;
    KafkaDeadLetters::new(&config, &dlq).unwrap().send(&[letter(&events, 0), letter(&events, 1)]).await.unwrap();
    let replay = KafkaReplay::new(&config, &events, &dlq).unwrap();
    replay.begin().await.unwrap();
    let letters = replayable(&config, &events, &dlq).await;
    replay.send(letters.clone()).await.unwrap();
    let tombstone = OutgoingRecord { key: Some(format!("{events}/3/0").into()), ..OutgoingRecord::default() };
    KafkaPublisher::new(&config, &format!("{dlq}.replayed")).unwrap().publish(vec![tombstone]).await.unwrap();
    let known = next_replay_knows(&config, &events, &dlq).await;
    assert_eq!(letters.iter().map(|letter| known.contains(letter.source())).collect::<Vec<_>>(), [false, true]);
}

/// Fresh topics of events and of dead letters.
async fn topics(partitions: &[i32; 2]) -> (KafkaConfig, String, String) {
    let (config, dlq) = dlq(partitions[1]).await;
    let events = super::topic(&config, partitions[0]).await;
    (config, events, dlq)
}

async fn replayable(config: &KafkaConfig, events: &str, dlq: &str) -> Vec<Replayable> {
    let letters = read_all(config, dlq, None).await.into_iter();
    let mut letters: Vec<_> = letters.map(|letter| letter.into_replayable(events).unwrap()).collect();
    letters.sort_by_key(|letter| letter.source().offset);
    letters
}

async fn next_replay_knows(config: &KafkaConfig, events: &str, dlq: &str) -> Replayed {
    KafkaReplay::new(config, events, dlq).unwrap().begin().await.unwrap()
}

/// Waits until the last transaction is over and readers find `expected` in `topic`.
async fn holds(config: &KafkaConfig, topic: &str, expected: &[impl AsRef<str>]) {
    let expected: Vec<_> = expected.iter().map(AsRef::as_ref).collect();
    eventually(DEADLINE, "what was sent can be read", async || {
        let mut values: Vec<_> = read_all(config, topic, None).await.iter().map(value).collect();
        values.sort();
        if values == expected { Ok(()) } else { Err(format!("{values:?}")) }
    })
    .await;
}
