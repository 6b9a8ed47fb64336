//! Help, variables, signals and exit codes.

use std::collections::{BTreeMap, BTreeSet};

use netagg_tests::eventually;
use netagg_tests::programs::Process;

use super::installation::{Ended, Installation, PATIENCE};

const PROGRAMS: [&str; 5] = ["ingestor", "aggregator", "api", "generator", "netagg"];

async fn run(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut process = Process::start(program, arguments, variables.iter().copied());
    let code = process.code(PATIENCE).await;
    Ended { code, stdout: process.stdout(), stderr: process.stderr() }
}

#[tokio::test]
async fn help_lists_every_variable_with_its_default_and_no_value() {
    for program in PROGRAMS {
        let help = run(program, &["--help"], &[("POSTGRES_PASSWORD", "s3cret"), ("LOG_LEVEL", "nonsense")]).await;
        assert_eq!(help.code, 0, "{}", help.stderr);
        for shown in ["POSTGRES_HOST", "localhost", "POSTGRES_PASSWORD", "LOG_LEVEL", "info"] {
            assert!(help.stdout.contains(shown) || (program != "ingestor" && shown == "info"), "{program}: {shown}");
        }
        assert!(!help.stdout.contains("s3cret"), "{program}");
    }
    let help = run("ingestor", &["--help"], &[]).await.stdout;
    for variable in ["INGESTOR_WORKER_COUNT", "INGESTOR_BATCH_SIZE", "INGESTOR_BATCH_TIMEOUT", "EVENT_MAX_AGE", "1825d"]
    {
        assert!(help.contains(variable), "{variable} in {help}");
    }
}

#[tokio::test]
async fn env_example_names_the_variables_of_every_help_with_their_defaults() {
    let mut defaults = BTreeMap::<String, String>::new();
    for program in PROGRAMS {
        let help = run(program, &["--help"], &[]).await.stdout;
        let (_, variables) = help.split_once("\nEnvironment variables").expect("a list of variables");
        for line in variables.lines().skip(1) {
            let mut words = line.split_whitespace();
            let (name, default) = words.next().zip(words.next()).expect("a name and a default");
            let default = if default == "-" { "" } else { default };
            // Where the programs differ, the file leaves each its own.
            let shared = defaults.entry(name.to_owned()).or_insert_with(|| default.to_owned());
            if shared != default {
                shared.clear();
            }
        }
    }
    let help: BTreeSet<_> = defaults.into_iter().map(|(name, default)| format!("{name}={default}")).collect();

    let lines = include_str!("../../../.env.example").lines();
    let example: BTreeSet<_> = lines
        .filter(|line| !line.is_empty())
        // One of many names stands for all of them.
        .map(|line| if line.starts_with("# KAFKA_OPT_") { "KAFKA_OPT_*=" } else { line })
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let only = |these: &BTreeSet<String>, those| Vec::from_iter(these.difference(those).cloned());
    let (missing, unknown) = (only(&help, &example), only(&example, &help));
    assert!(missing.is_empty() && unknown.is_empty(), "in no .env.example: {missing:?}, in no --help: {unknown:?}");
}

#[tokio::test]
async fn a_wrong_variable_is_named_with_its_value_and_what_is_accepted() {
    for (program, name, value, accepted) in [
        ("ingestor", "INGESTOR_BATCH_SIZE", "0", "an integer from 1"),
        ("ingestor", "EVENT_MAX_AGE", "5", "an integer and a unit"),
        ("aggregator", "AGGREGATOR_BATCH_TIMEOUT", "5 s", "an integer and a unit"),
        ("api", "API_HTTP_PORT", "70000", "an integer from 1 to 65535"),
        ("api", "OPS_BIND", "everywhere", "an IP address"),
        ("generator", "GENERATOR_DUPLICATE_RATE", "2", "a number from 0 to 1"),
        ("ingestor", "POSTGRES_SSLMODE", "maybe", "verify-full"),
        ("ingestor", "LOG_FORMAT", "xml", "json"),
    ] {
        let ended = run(program, &[], &[(name, value)]).await;
        assert_eq!(ended.code, 2, "{name}: {}", ended.stderr);
        for shown in [name, value, accepted] {
            assert!(ended.stderr.contains(shown), "{shown} in {}", ended.stderr);
        }
    }
    // Several at once, and never a password.
    let url = "mysql://me:s3cret@host/db";
    let ended = run("ingestor", &[], &[("DATABASE_URL", url), ("KAFKA_OPT_ENABLE_AUTO_COMMIT", "true")]).await;
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("DATABASE_URL") && ended.stderr.contains("KAFKA_OPT_ENABLE_AUTO_COMMIT"));
    assert!(!ended.stderr.contains("s3cret"), "{}", ended.stderr);
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2() {
    for arguments in
        [&["no-such-command"][..], &["demo", "--events", "0"], &["migrate"], &["migrate", "down", "--to", "x"]]
    {
        let ended = run("netagg", arguments, &[]).await;
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
    }
    assert_eq!(run("ingestor", &["--no-such-option"], &[]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_with_other_limits_than_the_recorded_ones_do_not_start() {
    let mut installation = Installation::new().await;
    let mut first = installation.start("ingestor");
    installation.readiness("ingestor", 200).await;
    installation.set("EVENT_MAX_AGE", "10d");
    let ended = installation.run("aggregator", &[]).await;
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    for shown in ["1825d", "10d", "netagg limits set"] {
        assert!(ended.stderr.contains(shown), "{}", ended.stderr);
    }
    let topic = installation.variable("KAFKA_TOPIC").to_owned();
    // While a member judges by the old ones, whether or not there is anything to judge.
    eventually(PATIENCE, "a member", async || {
        let ended = installation.run("netagg", &["limits", "set", "--max-age", "10d"]).await;
        let refused = ended.code == 1 && ended.stderr.contains(&format!("{topic}-ingestor has 1 members"));
        if refused && ended.stderr.contains("--force") { Ok(()) } else { Err(ended.stderr) }
    })
    .await;
    first.terminate();
    assert_eq!(first.code(PATIENCE).await, 0);

    assert_eq!(
        installation.run("netagg", &["limits", "show"]).await.stdout,
        "EVENT_MAX_AGE=1825d\nEVENT_MAX_FUTURE=1d\n"
    );
    assert_eq!(installation.run("netagg", &["limits", "set"]).await.code, 2);
    assert_eq!(installation.run("netagg", &["limits", "set", "--max-age", "ten"]).await.code, 2);
    let ended = installation.run("netagg", &["limits", "set", "--max-age", "10d"]).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let _second = installation.start("aggregator");
    installation.readiness("aggregator", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_not_changed_while_messages_wait_to_be_judged() {
    let installation = Installation::new().await;
    let generator = installation.generator(&[("GENERATOR_DURATION", "1s")]);
    let mut ingestor = installation.start("ingestor");
    // Stored by the one, not yet counted by the other.
    eventually(PATIENCE, "events are stored", async || {
        let pool = installation.pool().await;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM events_raw").fetch_one(&pool).await.expect("a count");
        pool.close().await;
        if count > 0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    ingestor.terminate();
    assert_eq!(ingestor.code(PATIENCE).await, 0);
    let ended = installation.run("netagg", &["limits", "set", "--max-age", "10d"]).await;
    assert_eq!(ended.code, 1, "{}", ended.stdout);
    assert!(ended.stderr.contains("aggregator has ") && ended.stderr.contains("--force"), "{}", ended.stderr);
    let ended = installation.run("netagg", &["limits", "set", "--max-age", "10d", "--force"]).await;
    assert_eq!((ended.code, ended.stdout.lines().next()), (0, Some("EVENT_MAX_AGE=10d")));
    assert!(ended.stdout.contains("netagg audit"), "{}", ended.stdout);
    let shown = installation.run("netagg", &["topic", "describe"]).await.stdout;
    assert!(shown.contains("ingestor lag") && shown.contains("aggregator lag"), "{shown}");
    drop(generator);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_wait_for_the_schema_and_say_so() {
    let installation = Installation::new().await;
    assert_eq!(installation.run("netagg", &["migrate", "down", "--all"]).await.code, 0);
    assert_eq!(installation.run("netagg", &["migrate", "status"]).await.code, 1);
    let mut services = ["ingestor", "aggregator", "api"].map(|name| installation.start(name));
    for name in ["ingestor", "aggregator", "api"] {
        let report = installation.readiness(name, 503).await;
        let reason = report["dependencies"]["postgres"].as_str().unwrap_or_default().to_owned();
        assert!(reason.contains("not reached yet") || reason.contains("netagg migrate up"), "{report}");
        assert_eq!(installation.ops(name, "/healthz").await.expect("alive").0, 200);
    }
    assert_eq!(installation.run("netagg", &["migrate", "up"]).await.code, 0);
    assert_eq!(installation.run("netagg", &["migrate", "status"]).await.code, 0);
    for name in ["ingestor", "aggregator", "api"] {
        installation.readiness(name, 200).await;
    }
    for service in &mut services {
        assert!(service.is_running(), "{}", service.stderr());
    }
}
