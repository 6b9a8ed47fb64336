//! `netagg dlq`: dead letters are listed and shown, and each is sent again once.

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

/// The number of dead letters. A replay needs many transactions for them.
const DEAD_LETTERS: i64 = 20_000;

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
    let kinds: Vec<_> = listed.iter().map(|dead_letter| dead_letter["kind"].as_str().expect("a kind")).collect();
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
    for (kind, dead_letters, sent_again) in
        [("too_far_in_future", "1", "1"), ("unknown_type", "1", "0"), ("all", "2", "1")]
    {
        let cells: [_; 4] = cells(&stats, kind);
        assert_eq!((&*cells[0], &*cells[3]), (dead_letters, sent_again), "{stats}");
    }
    // A message that is still invalid becomes a new dead letter.
    run(&installation, &["dlq", "replay"]).await;
    self::listed(&installation, 3).await;
    stop(services).await;
    // The markers of the transactions do not count as unprocessed messages, so the limits can be changed.
    run(&installation, &["limits", "set", "--max-future", "2d"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replay_loses_no_dead_letter_and_sends_none_twice() {
    let installation = Installation::new().await;
    let dead_letters: Vec<_> =
        (0..DEAD_LETTERS).map(|offset| dead_letter(installation.variable("KAFKA_TOPIC"), offset)).collect();
    let writer = KafkaDeadLetters::new(&installation.kafka(), installation.variable("KAFKA_DLQ_TOPIC"));
    let writer = writer.expect("a writer");
    for chunk in dead_letters.chunks(5_000) {
        writer.send(chunk).await.expect("written");
    }
    // A crash of the ingestor may leave copies of dead letters.
    writer.send(&dead_letters[..100]).await.expect("written");

    let mut kills = 0;
    while kills < 3 {
        let mut replay = installation.command(&["dlq", "replay"]);
        let sent = installation.offsets().await;
        eventually(PATIENCE, "the replay has sent some dead letters", async || {
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
    assert!(kills > 0, "no replay was killed in the middle");
    let report = run(&installation, &["dlq", "replay"]).await;
    let [sent, before] = cells(&report, "all").map(|cell| cell.parse::<i64>().expect("a number"));
    assert!(sent > 0 && before > 100 && sent + before == DEAD_LETTERS + 100, "{report}");
    each_arrived(&installation, 1).await;

    let report = run(&installation, &["dlq", "replay"]).await;
    assert_eq!(cells(&report, "all"), ["0".to_owned(), (DEAD_LETTERS + 100).to_string()], "{report}");
    let report = run(&installation, &["dlq", "replay", "--all"]).await;
    assert_eq!(cells(&report, "all"), [DEAD_LETTERS.to_string(), "100".to_owned()], "{report}");
    each_arrived(&installation, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_cut_and_other_topics_dead_letters_are_never_sent() {
    let installation = Installation::new().await;
    let topic = installation.variable("KAFKA_TOPIC");
    let forged = vec![Header::new("netagg-error", "too_old"), Header::new("netagg-source-topic", topic.to_owned())];
    let mut truncated = dead_letter(topic, 5).headers();
    truncated.push(Header::new("netagg-truncated", "5000000"));
    let publisher = KafkaPublisher::new(&installation.kafka(), installation.variable("KAFKA_DLQ_TOPIC"));
    let record = |headers| OutgoingRecord { key: None, value: Some("{}".into()), headers };
    let records = [vec![], forged, truncated, dead_letter("another", 6).headers(), dead_letter(topic, 7).headers()];
    publisher.expect("a publisher").publish(records.map(record).into()).await.expect("published");

    for arguments in [&["dlq", "replay", "--dry-run"][..], &["dlq", "replay"], &["dlq", "replay", "--all"]] {
        let report = run(&installation, arguments).await;
        let [sent, _] = cells(&report, "all");
        assert_eq!(sent, "1", "{report}");
        for line in ["left out: 2 foreign", "left out: 1 truncated", "left out: 1 not from the topic"] {
            assert!(report.contains(line), "{line} in {report}");
        }
    }
    eventually(PATIENCE, "the only dead letter is sent twice", async || match installation.messages().await.len() {
        2 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_and_shown_without_control_characters() {
    let installation = Installation::new().await;
    let topic = installation.variable("KAFKA_TOPIC");
    let dlq = KafkaDeadLetters::new(&installation.kafka(), installation.variable("KAFKA_DLQ_TOPIC"));
    let dlq = dlq.expect("a writer");
    let mut bad = dead_letter(topic, 1);
    bad.record.key = Some("\u{1b}]0;title\u{7}".into());
    bad.record.value = Some(Bytes::from_static(b"\x1b[2J\xff"));
    bad.record.headers = vec![Header::new("\u{9b}31m", "\u{202e}txt")];
    bad.reason = EventLimits::default().admit(&bad.record).unwrap_err();
    let mut null = dead_letter(topic, 2);
    null.record.value = None;
    null.reason = EventLimits::default().admit(&null.record).unwrap_err();
    null.record.partition = PartitionId::new(topic, 1);
    for dead_letter in [dead_letter(topic, 0), bad, null] {
        dlq.send(&[dead_letter]).await.expect("written");
    }

    let dead_letters = listed(&installation, 3).await;
    assert_eq!(
        dead_letters.iter().map(|dead_letter| dead_letter["source"]["offset"].as_i64()).collect::<Vec<_>>(),
        [2, 1, 0].map(Some)
    );
    let (null, bad, text) = (&dead_letters[0], &dead_letters[1], &dead_letters[2]);
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

    let show = async |dead_letter: &Value, more: &[&str]| {
        let position = dead_letter["position"].as_str().expect("a position");
        run(&installation, &[&["dlq", "show", position], more].concat()).await
    };
    assert!(show(text, &[]).await.contains("\nno JSON 0\n"));
    assert!(show(null, &[]).await.contains("value   null\n"));
    assert!(show(bad, &[]).await.contains("1b 5b 32 4a ff"));
    let whole: Value = serde_json::from_str(&show(bad, &["--json"]).await).expect("JSON");
    assert_eq!(whole["value_hex"], "1b5b324aff");
    assert_eq!(whole["headers"][0], serde_json::json!({"name": "\u{9b}31m", "value": "\u{202e}txt"}));
    let table = run(&installation, &["dlq", "list"]).await;
    for shown in [table, show(bad, &[]).await, show(bad, &["--json"]).await] {
        let is_unsafe = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!shown.contains(is_unsafe), "{shown:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_about_arguments_name_the_argument_or_the_accepted_values() {
    let installation = Installation::new().await;
    for (arguments, expected) in [
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
        assert!(ended.stderr.contains(expected), "{expected} in {}", ended.stderr);
    }
}

/// The dead letter of a record that is not JSON.
fn dead_letter(topic: &str, offset: i64) -> DeadLetter {
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
    eventually(PATIENCE, "every dead letter was sent", async || {
        let mut arrived = BTreeMap::<_, i64>::new();
        for message in installation.messages().await {
            *arrived.entry(message.value).or_default() += 1;
        }
        let wrong = arrived.iter().find(|(_, count)| **count != times);
        if arrived.len() as i64 == DEAD_LETTERS && wrong.is_none() {
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

/// Waits until `dlq list --json` lists `count` dead letters, and returns them.
async fn listed(installation: &Installation, count: usize) -> Vec<Value> {
    eventually(PATIENCE, &format!("{count} dead letters are listed"), async || {
        let json = run(installation, &["dlq", "list", "--json"]).await;
        let dead_letters: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        if dead_letters.len() == count { Ok(dead_letters) } else { Err(json) }
    })
    .await
}

/// The cells of the row whose first cell is `name`, without this first cell.
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
