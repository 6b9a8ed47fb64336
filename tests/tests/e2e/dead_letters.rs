//! `netagg dlq`: what became dead letters is looked at, and sent again once.

use std::collections::BTreeMap;

use bytes::Bytes;
use netagg_core::ports::{DeadLetters, EventPublisher};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{DeadLetter, EventLimits, Header, OutgoingRecord, PartitionId, Record, RecordTimestamp};
use netagg_kafka::{KafkaDeadLetters, KafkaPublisher};
use netagg_testkit::eventually;
use serde_json::Value;

use super::installation::{Ended, Installation, PATIENCE};
use crate::support::programs::Process;

/// Many transactions of a replay.
const LETTERS: i64 = 20_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_valid_now_is_sent_again_and_counted_once() {
    let mut installation = Installation::new().await;
    installation.set("EVENT_MAX_FUTURE", "1h");
    let ahead = (chrono::Utc::now() + chrono::TimeDelta::hours(5)).to_rfc3339();
    let now = chrono::Utc::now().to_rfc3339();
    let [early, never, good] =
        [(1, &*ahead, "CALL_OUT"), (2, &*now, "FAX"), (3, &*now, "DATA")].map(|(id, started_at, event_type)| {
            let event = event(EventTemplate { id, started_at, ..EventTemplate::default() });
            String::from_utf8(event.encode()).expect("UTF-8").replace("CALL_OUT", event_type)
        });
    publish(&installation, "KAFKA_TOPIC", [&early, &never, &good]).await;
    let services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    installation.drained_and_exact(1).await;
    let listed = listed(&installation, 2).await;
    let kinds: Vec<_> = listed.iter().map(|letter| letter["kind"].as_str().expect("a kind")).collect();
    assert!(kinds.contains(&"too_far_in_future") && kinds.contains(&"unknown_type"), "{kinds:?}");
    stop(services).await;

    run(&installation, &["limits", "set", "--max-future", "1d"]).await;
    installation.set("EVENT_MAX_FUTURE", "1d");
    let services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    let dry = run(&installation, &["dlq", "replay", "--kind", "too_far_in_future", "--dry-run"]).await;
    assert_eq!(cells(&dry, "all"), ["1", "0"], "{dry}");
    for (sent, before) in [("1", "0"), ("0", "1")] {
        let report = run(&installation, &["dlq", "replay", "--kind", "too_far_in_future"]).await;
        assert_eq!(cells(&report, "all"), [sent, before], "{report}");
        installation.drained_and_exact(2).await;
    }
    let stats = run(&installation, &["dlq", "stats"]).await;
    for (kind, letters, sent_again) in [("too_far_in_future", "1", "1"), ("unknown_type", "1", "0"), ("all", "2", "1")]
    {
        let cells: [_; 4] = cells(&stats, kind);
        assert_eq!((&*cells[0], &*cells[3]), (letters, sent_again), "{stats}");
    }
    // What is still invalid comes back as another letter.
    run(&installation, &["dlq", "replay"]).await;
    self::listed(&installation, 3).await;
    stop(services).await;
    // The marks of the transactions are not taken for messages that nobody has judged.
    run(&installation, &["limits", "set", "--max-future", "2d"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replay_loses_and_doubles_nothing() {
    let installation = Installation::new().await;
    let letters: Vec<_> = (0..LETTERS).map(|offset| letter(installation.variable("KAFKA_TOPIC"), offset)).collect();
    let writer = KafkaDeadLetters::new(&installation.kafka(), installation.variable("KAFKA_DLQ_TOPIC"));
    let writer = writer.expect("a writer");
    for some in letters.chunks(5_000) {
        writer.send(some).await.expect("written");
    }
    // As after a crash of the ingestor.
    writer.send(&letters[..100]).await.expect("written");

    let mut kills = 0;
    while kills < 3 {
        let mut replay = installation.command(&["dlq", "replay"]);
        let sent = installation.offsets().await;
        eventually(PATIENCE, "it has sent some", async || {
            let now = installation.offsets().await;
            if now > sent || !replay.is_running() { Ok(()) } else { Err(format!("{now} after {sent}")) }
        })
        .await;
        replay.kill();
        if replay.code(PATIENCE).await == 0 {
            break;
        }
        kills += 1;
    }
    assert!(kills > 0, "it was not killed in the middle");
    let report = run(&installation, &["dlq", "replay"]).await;
    let [sent, before] = cells(&report, "all").map(|cell| cell.parse::<i64>().expect("a number"));
    assert!(sent > 0 && before > 100 && sent + before == LETTERS + 100, "{report}");
    each_arrived(&installation, 1).await;

    let report = run(&installation, &["dlq", "replay"]).await;
    assert_eq!(cells(&report, "all"), ["0".to_owned(), (LETTERS + 100).to_string()], "{report}");
    let report = run(&installation, &["dlq", "replay", "--all"]).await;
    assert_eq!(cells(&report, "all"), [LETTERS.to_string(), "100".to_owned()], "{report}");
    each_arrived(&installation, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_netagg_did_not_write_whole_for_this_topic_is_never_sent() {
    let installation = Installation::new().await;
    let topic = installation.variable("KAFKA_TOPIC");
    let forged = vec![Header::new("netagg-error", "too_old"), Header::new("netagg-source-topic", topic.to_owned())];
    let mut truncated = letter(topic, 5).headers();
    truncated.push(Header::new("netagg-truncated", "5000000"));
    let publisher = KafkaPublisher::new(&installation.kafka(), installation.variable("KAFKA_DLQ_TOPIC"));
    let record = |headers| OutgoingRecord { key: None, value: Some("{}".into()), headers };
    let records = [vec![], forged, truncated, letter("another", 6).headers(), letter(topic, 7).headers()];
    publisher.expect("a publisher").publish(records.map(record).into()).await.expect("published");

    for arguments in [&["dlq", "replay", "--dry-run"][..], &["dlq", "replay"], &["dlq", "replay", "--all"]] {
        let report = run(&installation, arguments).await;
        let [sent, _] = cells(&report, "all");
        assert_eq!(sent, "1", "{report}");
        for told in ["left out: 2 foreign", "left out: 1 truncated", "left out: 1 from another topic"] {
            assert!(report.contains(told), "{told} in {report}");
        }
    }
    eventually(PATIENCE, "the one letter is sent twice", async || match installation.messages().await.len() {
        2 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_and_shown_and_harm_no_terminal() {
    let installation = Installation::new().await;
    let topic = installation.variable("KAFKA_TOPIC");
    let dlq = KafkaDeadLetters::new(&installation.kafka(), installation.variable("KAFKA_DLQ_TOPIC"));
    let dlq = dlq.expect("a writer");
    let mut bad = letter(topic, 1);
    bad.record.key = Some("\u{1b}]0;title\u{7}".into());
    bad.record.value = Some(Bytes::from_static(b"\x1b[2J\xff"));
    bad.record.headers = vec![Header::new("\u{9b}31m", "\u{202e}txt")];
    bad.reason = EventLimits::default().admit(&bad.record).unwrap_err();
    let mut null = letter(topic, 2);
    null.record.value = None;
    null.reason = EventLimits::default().admit(&null.record).unwrap_err();
    null.record.partition = PartitionId::new(topic, 1);
    for letter in [letter(topic, 0), bad, null] {
        dlq.send(&[letter]).await.expect("written");
    }

    let letters = listed(&installation, 3).await;
    assert_eq!(
        letters.iter().map(|letter| letter["source"]["offset"].as_i64()).collect::<Vec<_>>(),
        [2, 1, 0].map(Some)
    );
    let (null, bad, text) = (&letters[0], &letters[1], &letters[2]);
    assert_eq!((&text["kind"], &text["key"]), (&"malformed_json".into(), &"user 0".into()));
    assert_eq!(text["source"]["topic"], topic);
    assert_eq!(bad["key"], "\u{1b}]0;title\u{7}");
    for (filter, count) in [
        (&["--limit", "1"][..], 1),
        (&["--kind", "null_value"], 1),
        (&["--kind", "foreign"], 0),
        (&["--partition", "3"], 2),
        (&["--since", "1h"], 3),
        (&["--until", "1h"], 0),
        (&["--since", "2020-01-01", "--until", "2020-01-02T00:00:00Z"], 0),
        (&["--since", text["time"].as_str().expect("a time"), "--until", bad["time"].as_str().expect("a time")], 1),
    ] {
        let json = run(&installation, &[&["dlq", "list", "--json"], filter].concat()).await;
        assert_eq!(json.lines().count(), count, "{filter:?}: {json}");
    }

    let show = async |letter: &Value, more: &[&str]| {
        let place = letter["place"].as_str().expect("a place");
        run(&installation, &[&["dlq", "show", place], more].concat()).await
    };
    assert!(show(text, &[]).await.contains("\nno JSON 0\n"));
    assert!(show(null, &[]).await.contains("value   null\n"));
    assert!(show(bad, &[]).await.contains("1b 5b 32 4a ff"));
    let whole: Value = serde_json::from_str(&show(bad, &["--json"]).await).expect("JSON");
    assert_eq!(whole["value_hex"], "1b5b324aff");
    assert_eq!(whole["headers"][0], serde_json::json!({"name": "\u{9b}31m", "value": "\u{202e}txt"}));
    let table = run(&installation, &["dlq", "list"]).await;
    for shown in [table, show(bad, &[]).await, show(bad, &["--json"]).await] {
        let acts = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.contains(acts), "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_are_named() {
    let installation = Installation::new().await;
    for (arguments, told) in [
        (&["list", "--kind", "fax"][..], "too_far_in_future"),
        (&["list", "--partition", "-1"], "-1"),
        (&["list", "--since", "tomorrow"], "2025-10-20T12:34:56Z"),
        (&["stats", "--since", "1h", "--until", "2h"], "is not before --until"),
        (&["list", "--limit", "0"], "--limit"),
        (&["show", "3-17"], "3:17"),
        (&["show", "0:5"], "has no message there"),
        (&["show", "99:0"], "has no message there"),
        (&["replay", "--since", "2020-01-02", "--until", "2020-01-01"], "is not before --until"),
    ] {
        let ended = installation.run("netagg", &[&["dlq"], arguments].concat()).await;
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{told} in {}", ended.stderr);
    }
}

/// The letter of a record that is no JSON.
fn letter(topic: &str, offset: i64) -> DeadLetter {
    let record = Record::new(PartitionId::new(topic, 3), offset, format!("no JSON {offset}"))
        .with_timestamp(RecordTimestamp::from_millis(offset))
        .with_key(format!("user {}", offset % 100));
    let reason = EventLimits::default().admit(&record).unwrap_err();
    DeadLetter { record, reason }
}

async fn publish<const N: usize>(installation: &Installation, topic: &str, values: [&String; N]) {
    let publisher = KafkaPublisher::new(&installation.kafka(), installation.variable(topic)).expect("a publisher");
    publisher.publish(values.map(|value| OutgoingRecord::new(value.clone())).into()).await.expect("published");
}

async fn each_arrived(installation: &Installation, times: i64) {
    eventually(PATIENCE, "every letter is there", async || {
        let mut arrived = BTreeMap::<_, i64>::new();
        for message in installation.messages().await {
            *arrived.entry(message.value).or_default() += 1;
        }
        let wrong = arrived.iter().find(|(_, count)| **count != times);
        if arrived.len() as i64 == LETTERS && wrong.is_none() {
            Ok(())
        } else {
            Err(format!("{}, {wrong:?}", arrived.len()))
        }
    })
    .await;
}

async fn run(installation: &Installation, arguments: &[&str]) -> String {
    let Ended { code, stdout, stderr } = installation.run("netagg", arguments).await;
    assert_eq!(code, 0, "{arguments:?}: {stdout}\n{stderr}");
    stdout
}

/// The dead letters as `dlq list --json` has them, once there are `count`.
async fn listed(installation: &Installation, count: usize) -> Vec<Value> {
    eventually(PATIENCE, "the dead letters", async || {
        let json = run(installation, &["dlq", "list", "--json"]).await;
        let letters: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        if letters.len() == count { Ok(letters) } else { Err(json) }
    })
    .await
}

/// The cells after the first one of the row that starts with `name`.
fn cells<const N: usize>(table: &str, name: &str) -> [String; N] {
    let row = table.lines().map(|line| line.trim_matches(['│', ' ']).split_whitespace());
    let mut row = row.map(Vec::from_iter).find(|row| row.first() == Some(&name)).expect("a row").into_iter().skip(1);
    std::array::from_fn(|_| row.next().expect("a cell").to_owned())
}

async fn stop<const N: usize>(services: [Process; N]) {
    for mut service in services {
        service.terminate();
        assert_eq!(service.code(PATIENCE).await, 0, "{}", service.stderr());
    }
}
