//! The commands `netagg partitions` and `netagg topic`, and the exit codes of all commands.

use futures::future::join_all;
use netagg_core::OutgoingRecord;
use netagg_core::ports::{Clock, EventPublisher, SystemClock};
use netagg_core::testkit::{EventTemplate, event};
use netagg_kafka::{KafkaPublisher, TopicSpec};
use netagg_testkit::eventually;

use super::installation::{Ended, Installation, PATIENCE};

async fn run(installation: &Installation, arguments: &[&str]) -> String {
    let Ended { code, stdout, stderr } = installation.run("netagg", arguments).await;
    assert_eq!(code, 0, "{arguments:?}: {stdout}\n{stderr}");
    stdout
}

/// The cells of the rows of a table whose first cell passes `start`.
fn rows<const N: usize>(table: &str, start: impl Fn(&str) -> bool) -> Vec<[&str; N]> {
    let rows = table.lines().map(|line| Vec::from_iter(line.trim_matches(['│', ' ']).split_whitespace()));
    rows.filter(|row| row.first().is_some_and(|cell| start(cell)))
        .map(|row| row.try_into().unwrap_or_else(|row| panic!("{N} cells in {row:?}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_created_ahead_once_and_listed() {
    let mut installation = Installation::new().await;
    let this_month = SystemClock.now().day().month();
    let months = std::iter::successors(Some(this_month), |month| Some(month.next()));
    let months: Vec<_> = months.take(4).map(|month| month.to_string()).collect();
    for (ahead, created) in [("2", &months[..3]), ("2", &[]), ("3", &months[3..])] {
        installation.set("PARTITIONS_AHEAD", ahead);
        let output = run(&installation, &["partitions", "ensure"]).await;
        let expected = [&[format!("{} partitions created", created.len())], created].concat();
        assert_eq!(Vec::from_iter(output.lines()), expected);
    }
    let listed = run(&installation, &["partitions", "list"]).await;
    let listed: Vec<_> = rows(&listed, |name| name.starts_with("events_raw"))
        .iter()
        .map(|[name, month, ..]: &[_; 4]| (*name, *month))
        .collect();
    let named = |month: &String| format!("events_raw_{}", month.replace('-', "_"));
    let names: Vec<_> = months.iter().map(named).collect();
    assert_eq!(listed, names.iter().zip(&months).map(|(name, month)| (&**name, &**month)).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_described_with_the_lag_of_each_group() {
    let installation = Installation::new().await;
    let topic = installation.variable("KAFKA_TOPIC");
    let now = SystemClock.now().to_string();
    let message = |id: u128| {
        let event = event(EventTemplate { id, started_at: &now, ..EventTemplate::default() });
        OutgoingRecord::new(event.encode()).with_key(format!("user-{id}"))
    };
    let publisher = KafkaPublisher::new(&installation.kafka(), topic).expect("a publisher");
    publisher.publish((0..50).map(message).collect()).await.expect("published");
    let _ingestor = installation.start("ingestor");
    let is_partition = |cell: &str| cell.parse::<u32>().is_ok();
    let described = eventually(PATIENCE, "the ingestor has committed everything", async || {
        let described = run(&installation, &["topic", "describe"]).await;
        let is_done = rows(&described, is_partition).iter().all(|[_, _, _, lag, ..]: &[_; 8]| *lag == "0");
        if is_done { Ok(described) } else { Err(described) }
    })
    .await;
    let size = TopicSpec::events(topic).max_message_bytes;
    assert!(described.starts_with(&format!("{topic}: largest message {size} bytes\n")), "{described}");
    let partitions = rows(&described, is_partition);
    let mut messages = 0;
    for (number, [partition, first, next, _, lag, leader, replicas, in_sync]) in partitions.iter().enumerate() {
        assert_eq!((partition.parse(), *first, lag), (Ok(number), "0", next), "{described}");
        assert!(replicas.split(',').any(|replica| replica == *leader) && in_sync == replicas, "{described}");
        messages += next.parse::<i64>().expect("a number");
    }
    assert_eq!((partitions.len(), messages), (8, 50), "{described}");

    let dlq = installation.variable("KAFKA_DLQ_TOPIC");
    let described = run(&installation, &["topic", "describe", dlq]).await;
    let size = TopicSpec::dead_letters(dlq).max_message_bytes;
    assert!(described.starts_with(&format!("{dlq}: largest message {size} bytes\n")), "{described}");
    let listed = run(&installation, &["topic", "list"]).await;
    assert_eq!(rows(&listed, |name| name == topic || name == dlq), [[topic, "8"], [dlq, "8"]]);
    let again = run(&installation, &["topic", "create", "--partitions", "3"]).await;
    assert_eq!(again, format!("{topic}: exists already, not changed\n{dlq}: exists already, not changed\n"));
    let unknown = installation.run("netagg", &["topic", "describe", "nowhere"]).await;
    assert_eq!(unknown.code, 1, "{}", unknown.stdout);
    assert!(unknown.stderr.contains("no topic nowhere; `netagg topic create`"), "{}", unknown.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_has_exit_code_1_and_wrong_usage_has_exit_code_2() {
    let mut nowhere = Installation::on("postgres://app_user@127.0.0.1:1/none", "127.0.0.1:1", "redis://127.0.0.1:1");
    nowhere.set("KAFKA_OPT_MESSAGE_TIMEOUT_MS", "1000");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), event(EventTemplate::default()).encode()).expect("written");
    let events = file.path().to_str().expect("UTF-8");
    let (postgres, kafka) = ("postgres is unavailable", "kafka is unavailable");
    let days = ["--from", "2025-10-20", "--to", "2025-10-20"];
    let fails: [(&[&str], i32, &str); 19] = [
        (&["migrate", "up"], 1, postgres),
        (&["migrate", "status"], 1, postgres),
        (&["partitions", "ensure"], 1, postgres),
        (&["partitions", "list"], 1, postgres),
        (&["partitions", "drop", "--before", "2021-01"], 1, postgres),
        (&["limits", "show"], 1, postgres),
        (&["limits", "set", "--max-age", "10d"], 1, postgres),
        (&["keys", "list"], 1, postgres),
        (&[&["rebuild"], &days[..]].concat(), 1, postgres),
        // The audit uses exit code 1 for a difference.
        (&["audit"], 2, postgres),
        (&["topic", "create"], 1, kafka),
        (&["topic", "list"], 1, kafka),
        (&["topic", "describe"], 1, kafka),
        (&["dlq", "list"], 1, kafka),
        (&["dlq", "stats"], 1, kafka),
        (&["dlq", "show", "0:0"], 1, kafka),
        (&["dlq", "replay"], 1, kafka),
        (&["dlq", "replay", "--dry-run"], 1, kafka),
        (&["import", events], 1, kafka),
    ];
    let wrong: [(&[&str], i32, &str); 10] = [
        (&["partitions"], 2, "ensure"),
        (&["partitions", "drop"], 2, "--before <YYYY-MM>"),
        (&["partitions", "drop", "--before", "2025-13"], 2, "2025-13"),
        (&["partitions", "drop", "--before", "2025-10-20"], 2, "2025-10-20"),
        (&["topic", "create", "--partitions", "0"], 2, "1..=10000"),
        (&["topic", "create", "--replication", "many"], 2, "many"),
        (&["dlq", "list", "--kind", "fax"], 2, "refused_by_store, foreign"),
        (&["keys", "list", "--file"], 2, "--file <FILE>"),
        (&["limits", "set", "--max-future", "tomorrow"], 2, "tomorrow"),
        (&["import"], 2, "<FILE>"),
    ];
    let runs = fails.iter().chain(&wrong).map(async |(arguments, code, expected)| {
        let ended = nowhere.run("netagg", arguments).await;
        assert_eq!(ended.code, *code, "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stderr.contains(expected), "{arguments:?}: {expected} in {}", ended.stderr);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    });
    join_all(runs).await;
    nowhere.set("PARTITIONS_AHEAD", "121");
    let ended = nowhere.run("netagg", &["partitions", "ensure"]).await;
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("PARTITIONS_AHEAD") && ended.stderr.contains("121"), "{}", ended.stderr);
}
