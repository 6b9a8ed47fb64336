//! The configuration of programs: help, environment variables, limits, `.env`, and exit codes.

use std::collections::{BTreeMap, BTreeSet};

use netagg_testkit::eventually;

use super::installation::{Ended, Installation, PATIENCE, figure};
use crate::support::programs::Process;

const PROGRAMS: [&str; 5] = ["ingestor", "aggregator", "api", "generator", "netagg"];

pub(super) async fn run(program: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
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

/// The variables in the tables of a README with their defaults, for rows that have a default for each variable.
fn documented_defaults(readme: &str) -> impl Iterator<Item = (&str, &str)> {
    readme.lines().filter(|line| line.starts_with("| `")).flat_map(|row| {
        let cell = |number| row.split('|').nth(number).into_iter().flat_map(|cell: &str| cell.split(", "));
        let words = |number| Vec::from_iter(cell(number).map(|word| word.trim().trim_matches('`')));
        let (names, mut defaults) = (words(1), words(2));
        if defaults.len() == 1 {
            defaults.resize(names.len(), defaults[0]);
        }
        let is_complete = names.len() == defaults.len();
        names.into_iter().zip(defaults).filter(move |_| is_complete)
    })
}

#[tokio::test]
async fn env_example_names_the_variables_of_every_help_with_their_defaults() {
    let mut defaults = BTreeMap::<String, String>::new();
    for program in PROGRAMS {
        let help = run(program, &["--help"], &[]).await.stdout;
        let (_, variables) = help.split_once("\nEnvironment variables").expect("a list of variables");
        // The headings of groups are not indented.
        for line in variables.lines().skip(1).filter(|line| line.starts_with("  ")) {
            let mut words = line.split_whitespace();
            let (name, default) = words.next().zip(words.next()).expect("a name and a default");
            let default = if default == "-" { "" } else { default };
            // If programs have different defaults, the file has no value for this variable.
            let shared = defaults.entry(name.to_owned()).or_insert_with(|| default.to_owned());
            if shared != default {
                shared.clear();
            }
        }
    }
    let compared = documented_defaults(include_str!("../../../README.md")).filter(|(name, documented)| {
        let default = defaults.get(*name).filter(|default| !default.is_empty());
        assert!(default.is_none_or(|default| default == documented), "{name}: {default:?}, in README {documented}");
        default.is_some()
    });
    assert_eq!(compared.count(), 8);
    let help: BTreeSet<_> = defaults.into_iter().map(|(name, default)| format!("{name}={default}")).collect();

    let lines = include_str!("../../../.env.example").lines();
    let example: BTreeSet<_> = lines
        .filter(|line| !line.is_empty())
        // The file has one property as an example for all KAFKA_OPT_* variables.
        .map(|line| if line.starts_with("# KAFKA_OPT_") { "KAFKA_OPT_*=" } else { line })
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let only = |these: &BTreeSet<String>, those| Vec::from_iter(these.difference(those).cloned());
    let (missing, unknown) = (only(&help, &example), only(&example, &help));
    assert!(missing.is_empty() && unknown.is_empty(), "in no .env.example: {missing:?}, in no --help: {unknown:?}");
}

#[tokio::test]
async fn an_error_about_a_variable_has_its_name_its_value_and_the_accepted_values() {
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
    // Several variables are wrong at once. The errors never contain a password.
    let url = "mysql://me:s3cret@host/db";
    let ended = run("ingestor", &[], &[("DATABASE_URL", url), ("KAFKA_OPT_ENABLE_AUTO_COMMIT", "true")]).await;
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("DATABASE_URL") && ended.stderr.contains("KAFKA_OPT_ENABLE_AUTO_COMMIT"));
    assert!(!ended.stderr.contains("s3cret"), "{}", ended.stderr);
}

#[tokio::test]
async fn wrong_usage_has_exit_code_2() {
    for arguments in
        [&["no-such-command"][..], &["demo", "--events", "0"], &["migrate"], &["migrate", "down", "--to", "x"]]
    {
        let ended = run("netagg", arguments, &[]).await;
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
    }
    assert_eq!(run("ingestor", &["--no-such-option"], &[]).await.code, 2);
}

/// Waits until a service is a member of its group, and so has agreed on its limits. A service may be ready before. A new broker
/// needs some seconds to elect the coordinator.
async fn is_member(service: &Process) {
    eventually(PATIENCE, "the service is a member of its group", async || {
        if service.stderr().contains("kafka partitions assigned") { Ok(()) } else { Err(service.stderr()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_whose_limits_differ_from_the_recorded_limits_do_not_start() {
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
    is_member(&first).await;
    // The limits cannot be changed while a member runs with the old limits, also if it has no messages.
    eventually(PATIENCE, "the change is rejected because of a member", async || {
        let ended = installation.run("netagg", &["limits", "set", "--max-age", "10d"]).await;
        let is_rejected = ended.code == 1 && ended.stderr.contains(&format!("{topic}-ingestor has 1 members"));
        if is_rejected && ended.stderr.contains("--force") { Ok(()) } else { Err(ended.stderr) }
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
async fn services_with_old_limits_stop_at_their_next_batch_after_a_forced_change() {
    for mode in ["separate", "combined"] {
        let mut installation = Installation::new().await;
        installation.set("INGESTOR_MODE", mode);
        let services = if mode == "separate" { &["ingestor", "aggregator"][..] } else { &["ingestor"] };
        let mut started: Vec<_> = services.iter().map(|service| installation.start(service)).collect();
        for service in &started {
            is_member(service).await;
        }
        let ended = installation.run("netagg", &["limits", "set", "--max-age", "2000d", "--force"]).await;
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        let mut generator = installation.generator(&[("GENERATOR_DURATION", "1s"), ("GENERATOR_INVALID_RATE", "0.05")]);
        for service in &mut started {
            assert_eq!(service.code(PATIENCE).await, 2, "{}", service.stderr());
            for shown in ["max_age 2000d", "1825d"] {
                assert!(service.stderr().contains(shown), "{}", service.stderr());
            }
        }
        let written = "SELECT (SELECT count(*) FROM agg_day) + (SELECT count(*) FROM events_raw)";
        assert_eq!(installation.value::<i64>(written).await, 0, "the services wrote nothing by the old limits");

        // No offset of an event that was not stored is committed: with the new limits, each event is stored and counted.
        installation.set("EVENT_MAX_AGE", "2000d");
        let _services: Vec<_> = services.iter().map(|service| installation.start(service)).collect();
        // The generator waits only a minute for the services. So on a slow machine, it may end before they store its events.
        assert!([0, 1].contains(&generator.code(PATIENCE).await), "{}", generator.stderr());
        let sent = figure(&generator.stdout(), "events_sent").parse().expect("a number");
        installation.eventually_exact(sent).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_not_changed_while_messages_are_unprocessed() {
    let installation = Installation::new().await;
    let generator = installation.generator(&[("GENERATOR_DURATION", "1s")]);
    let mut ingestor = installation.start("ingestor");
    // The ingestor stores events that the aggregator has not counted.
    eventually(PATIENCE, "events are stored", async || {
        let count: i64 = installation.value("SELECT count(*) FROM events_raw").await;
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
async fn services_wait_for_the_schema_and_report_it() {
    let installation = Installation::new().await;
    assert_eq!(installation.run("netagg", &["migrate", "down", "--all"]).await.code, 0);
    assert_eq!(installation.run("netagg", &["migrate", "status"]).await.code, 1);
    let ended = installation.run("netagg", &["partitions", "ensure"]).await;
    assert!(ended.code == 1 && ended.stderr.contains("apply the migrations"), "{}", ended.stderr);
    let mut services = ["ingestor", "aggregator", "api"].map(|name| installation.start(name));
    for name in ["ingestor", "aggregator", "api"] {
        let report = installation.readiness(name, 503).await;
        let reason = report["dependencies"]["postgres"].as_str().unwrap_or_default().to_owned();
        assert!(reason.contains("not reached yet") || reason.contains("apply the migrations"), "{report}");
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

/// Addresses at which no server listens.
const NOWHERE: [(&str, &str); 3] = [
    ("DATABASE_URL", "postgres://no_role@127.0.0.1:1/none"),
    ("KAFKA_BROKERS", "127.0.0.1:1"),
    ("REDIS_URL", "redis://127.0.0.1:1"),
];

#[tokio::test]
async fn usage_errors_are_reported_before_a_program_connects() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing").to_string_lossy().into_owned();
    for (arguments, named) in [
        (&["limits", "set"][..], "--max-age"),
        (&["limits", "set", "--max-age", "ten"], "--max-age"),
        (&["audit", "--from", "2025-02-01", "--to", "2025-01-01"], "--from"),
        (&["rebuild", "--from", "2025-02-01", "--to", "2025-01-01"], "--from"),
        (&["topic", "describe", "no topic"], "a-z"),
        (&["topic", "create", "--partitions", "0"], "--partitions"),
        (&["partitions", "drop", "--before", "2025"], "--before"),
        (&["keys", "create", "--name", "x"], "--scope"),
        (&["keys", "create", "--name", "x", "--scope", "everything"], "--scope"),
        (&["keys", "create", "--name", "", "--scope", "detail:read"], "--name"),
        (&["keys", "revoke", "nonsense"], "ID"),
        (&["dlq", "list", "--since", "2025-02-01", "--until", "2025-01-01"], "--since"),
        (&["dlq", "stats", "--since", "2025-02-01", "--until", "2025-01-01"], "--since"),
        (&["dlq", "replay", "--since", "2025-02-01", "--until", "2025-01-01"], "--since"),
        (&["dlq", "list", "--kind", "nonsense"], "--kind"),
        (&["dlq", "show", "3"], "PARTITION:OFFSET"),
        (&["import", "--strict", "-"], "--strict"),
        (&["import", &missing], "missing"),
        (&["migrate", "down", "--all", "--to", "1"], "--all"),
    ] {
        let ended = run("netagg", arguments, &NOWHERE).await;
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(named) && !ended.stderr.contains("127.0.0.1"), "{arguments:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn equal_values_that_must_differ_are_reported_before_anything_starts() {
    let groups = [("KAFKA_GROUP_ID_INGESTOR", "g"), ("KAFKA_GROUP_ID_AGGREGATOR", "g")];
    let topics = [("KAFKA_TOPIC", "t"), ("KAFKA_DLQ_TOPIC", "t")];
    let markers = [("KAFKA_TOPIC", "t.replayed"), ("KAFKA_DLQ_TOPIC", "t")];
    let ports = [("API_HTTP_PORT", "8001"), ("API_GRPC_PORT", "8001")];
    for (program, arguments, variables, named) in [
        ("ingestor", &[][..], groups, "KAFKA_GROUP_ID_AGGREGATOR"),
        ("aggregator", &[], groups, "KAFKA_GROUP_ID_AGGREGATOR"),
        ("netagg", &["audit"], groups, "KAFKA_GROUP_ID_AGGREGATOR"),
        ("netagg", &["rebuild", "--from", "2025-01-01", "--to", "2025-01-02"], groups, "KAFKA_GROUP_ID_AGGREGATOR"),
        ("netagg", &["topic", "list"], groups, "KAFKA_GROUP_ID_AGGREGATOR"),
        ("netagg", &["limits", "set", "--max-age", "1825d"], groups, "KAFKA_GROUP_ID_AGGREGATOR"),
        // The value equals the default of the other variable.
        ("ingestor", &[], [("KAFKA_GROUP_ID_INGESTOR", "aggregator-group"), ("", "")], "KAFKA_GROUP_ID_INGESTOR"),
        ("ingestor", &[], topics, "KAFKA_DLQ_TOPIC"),
        ("aggregator", &[], topics, "KAFKA_DLQ_TOPIC"),
        ("generator", &[], topics, "KAFKA_DLQ_TOPIC"),
        ("netagg", &["import", "/dev/null"], topics, "KAFKA_DLQ_TOPIC"),
        ("netagg", &["dlq", "replay"], markers, "KAFKA_TOPIC"),
        ("ingestor", &[], markers, "KAFKA_TOPIC"),
        ("api", &[], ports, "API_HTTP_PORT"),
        ("api", &[], [("PPROF_PORT_API", "8000"), ("", "")], "PPROF_PORT_API"),
        ("api", &[], [("API_GRPC_PORT", "6062"), ("API_BIND", "0.0.0.0")], "API_GRPC_PORT"),
        ("netagg", &["demo", "--serve"], ports, "API_HTTP_PORT"),
    ] {
        let variables: Vec<_> = NOWHERE.into_iter().chain(variables).filter(|(name, _)| !name.is_empty()).collect();
        let ended = run(program, arguments, &variables).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{program} {arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(&format!("{named}=")), "{program} {arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("accepted: another"), "{program} {arguments:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn contradicting_kafka_properties_are_reported_before_a_program_waits_for_a_server() {
    for service in ["ingestor", "aggregator"] {
        let contradicting = [("KAFKA_OPT_SESSION_TIMEOUT_MS", "900000"), ("KAFKA_OPT_MAX_POLL_INTERVAL_MS", "300000")];
        let variables = [&NOWHERE[..], &contradicting].concat();
        let ended = run(service, &[], &variables).await;
        assert_eq!(ended.code, 2, "{service}: {}", ended.stderr);
        assert!(ended.stderr.contains("session.timeout.ms"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_wrong_value_of_a_variable_without_effect_is_no_error() {
    const LINK: &str = "tcp://10.43.0.7:5432";
    // The commands fail only because they cannot connect. It is no wrong usage.
    let overridden = [
        ("POSTGRES_PORT", LINK),
        ("POSTGRES_SSLMODE", "maybe"),
        ("REDIS_PORT", LINK),
        ("KAFKA_PORT", LINK),
        ("LOG_LEVEL", "off"),
    ];
    let variables = [&NOWHERE[..], &overridden].concat();
    for arguments in [&["limits", "show"][..], &["keys", "list"], &["migrate", "status"], &["topic", "list"]] {
        let ended = run("netagg", arguments, &variables).await;
        assert_eq!(ended.code, 1, "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.contains("10.43.0.7"), "{}", ended.stderr);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys").to_string_lossy().into_owned();
    let create = ["keys", "create", "--name", "x", "--scope", "detail:read"];
    let wrong = [("POSTGRES_PORT", LINK)];
    let in_file = run("netagg", &[&create[..], &["--file", &keys]].concat(), &wrong).await;
    assert_eq!(in_file.code, 0, "{}", in_file.stderr);
    let in_file = run("netagg", &["keys", "list"], &[("POSTGRES_PORT", LINK), ("API_KEYS_FILE", &keys)]).await;
    assert_eq!(in_file.code, 0, "{}", in_file.stderr);
    let demo = run(
        "netagg",
        &["demo", "--events", "1000"],
        &[("API_HTTP_PORT", LINK), ("API_BIND", "everywhere"), ("API_AUTH", "keys")],
    )
    .await;
    assert_eq!(demo.code, 0, "{}", demo.stderr);

    // With a replica to read from and a configured cursor secret, the API does not use the other database.
    let reads = [
        ("DATABASE_READ_URL", "postgres://no_role@127.0.0.1:1/none"),
        ("API_CURSOR_SECRET", "0123456789abcdef"),
        ("POSTGRES_PORT", LINK),
        ("API_HTTP_PORT", "none"),
    ];
    let api = run("api", &[], &reads).await;
    assert_eq!((api.code, api.stderr.lines().count()), (2, 1), "{}", api.stderr);

    // These variables have an effect, and the value is no port. The error names the reason.
    for (program, arguments, name, remedy) in [
        ("ingestor", &[][..], "POSTGRES_PORT", "DATABASE_URL"),
        ("aggregator", &[], "REDIS_PORT", "REDIS_URL"),
        ("generator", &[], "KAFKA_PORT", "KAFKA_BROKERS"),
        ("api", &[], "API_HTTP_PORT", "enableServiceLinks"),
        ("netagg", &["demo", "--serve"], "API_GRPC_PORT", "enableServiceLinks"),
    ] {
        let ended = run(program, arguments, &[(name, LINK)]).await;
        assert_eq!(ended.code, 2, "{name}: {}", ended.stderr);
        for shown in [name, LINK, "Kubernetes", "enableServiceLinks: false", remedy] {
            assert!(ended.stderr.contains(shown), "{shown} in {}", ended.stderr);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_run_among_the_variables_of_kubernetes() {
    let mut installation = Installation::new().await;
    for service in ["POSTGRES", "REDIS", "KAFKA", "API", "INGESTOR", "AGGREGATOR", "KAFKA_OPT"] {
        for (name, value) in [
            ("PORT", "tcp://10.43.0.7:5432"),
            ("PORT_5432_TCP", "tcp://10.43.0.7:5432"),
            ("PORT_5432_TCP_ADDR", "10.43.0.7"),
            ("PORT_5432_TCP_PORT", "5432"),
            ("PORT_5432_TCP_PROTO", "tcp"),
            ("SERVICE_HOST", "10.43.0.7"),
            ("SERVICE_PORT", "5432"),
            ("SERVICE_PORT_MAIN", "5432"),
        ] {
            installation.set(&format!("{service}_{name}"), value);
        }
    }
    installation.set("INGESTOR_BATCHSIZE", "5");
    let services = ["ingestor", "aggregator", "api"].map(|name| (name, installation.start(name)));
    for (name, _) in &services {
        installation.readiness(name, 200).await;
    }
    for (name, service) in services {
        let log = service.stderr();
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("unknown variable")).collect();
        let [warning] = *warnings else { panic!("{name}: {log}") };
        assert!(warning.contains("INGESTOR_BATCHSIZE") && warning.contains("INGESTOR_BATCH_SIZE"), "{warning}");
    }
    let listed = installation.run("netagg", &["topic", "describe"]).await;
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    assert!(listed.stderr.contains("INGESTOR_BATCH_SIZE"), "{}", listed.stderr);
}

#[tokio::test]
async fn an_env_file_is_taken_as_written() {
    const FILE: &str = "\u{feff}# of several programs\r
KAFKA_TOPIC=pa$word${HOME}\\n\r
export KAFKA_DLQ_TOPIC = 'a # b'\r
alias ll='ls -l'\r
{ \"json\": [\r
EVENT_MAX_AGE: 5d\r
EVENT_MAX_FUTURE=later # a comment\r
LOG_LEVEL=warn\r
OTHER=\"a value\r
of two lines\"\r
";
    let write = "cat > .env <<'END_OF_FILE'\n".to_owned() + FILE + "END_OF_FILE\n";
    let ended =
        super::installation::ended(Process::start_in_shell("ingestor", &write, "", [""; 0], [("", ""); 0])).await;
    assert_eq!(ended.code, 2);
    for shown in [r#"KAFKA_TOPIC="pa$word${HOME}\\n""#, r#"KAFKA_DLQ_TOPIC="a # b""#, r#"EVENT_MAX_FUTURE="later""#] {
        assert!(ended.stderr.contains(shown), "{shown} in {}", ended.stderr);
    }
    assert_eq!(ended.stderr.lines().count(), 3, "{}", ended.stderr);

    let write = "printf 'POSTGRES_PASSWORD: s3cret\\nnonsense\\n\\377\\n' > .env";
    let list = Process::start_in_shell("netagg", write, "", ["limits", "show"], NOWHERE);
    let ended = super::installation::ended(list).await;
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("POSTGRES_PASSWORD") && !ended.stderr.contains("s3cret"), "{}", ended.stderr);
    for (set, place) in [
        ("printf 'A=\\377\\nPOSTGRES_PASSWORD=p\\344ss\\n' > .env", "line 2 of .env"),
        ("export POSTGRES_PASSWORD=$'p\\344ss'", "the environment"),
    ] {
        let refused = Process::start_in_shell("netagg", set, "", ["limits", "show"], [("", ""); 0]);
        let refused = super::installation::ended(refused).await;
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains("POSTGRES_PASSWORD (value not shown)") && refused.stderr.contains(place));
        let overridden = Process::start_in_shell("netagg", set, "", ["limits", "show"], NOWHERE);
        assert_eq!(super::installation::ended(overridden).await.code, 1, "the variable has no effect");
    }
    let folder = Process::start_in_shell("netagg", "mkdir .env", "", ["demo", "--events", "1000"], [("", ""); 0]);
    assert_eq!(super::installation::ended(folder).await.code, 0, "a folder with this name is ignored");
}

#[tokio::test]
async fn the_scripts_read_an_env_file_as_the_programs_do() {
    const SCRIPT: &str = include_str!("../../../deploy/native/common.sh");
    let checkout = tempfile::tempdir().expect("a folder");
    let scripts = checkout.path().join("deploy/native");
    std::fs::create_dir_all(&scripts).expect("a folder");
    std::fs::write(scripts.join("common.sh"), SCRIPT).expect("written");
    for (value, expected) in [
        ("pa$word", "pa$word"),
        (r"a\n${HOME}`x`", r"a\n${HOME}`x`"),
        ("'a # b' # c", "a # b"),
        (r#"" a"b ""#, r#" a"b "#),
        (r#""a" # "b""#, "a"),
        (r#""open"#, r#""open"#),
        ("  a b  # c # d\r", "a b"),
        ("a#b", "a#b"),
    ] {
        let file = format!("\u{feff}# of several\r\nnonsense\nexport EVENT_MAX_FUTURE = {value}\n");
        std::fs::write(checkout.path().join(".env"), file).expect("written");
        let command = r#". "$0/deploy/native/common.sh"; setting EVENT_MAX_FUTURE default"#;
        let mut shell = std::process::Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", command]).arg(checkout.path()).env_remove("EVENT_MAX_FUTURE");
        let shell = shell.output().expect("bash");
        assert_eq!(String::from_utf8_lossy(&shell.stdout), format!("{expected}\n"), "{value}");
        let first = format!("cd '{}'", checkout.path().display());
        let program = Process::start_in_shell("ingestor", &first, "", [""; 0], [("", ""); 0]);
        let program = super::installation::ended(program).await;
        assert!(program.stderr.contains(&format!("EVENT_MAX_FUTURE={expected:?}:")), "{value}: {}", program.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_program_that_writes_rejects_a_distributed_database() {
    let installation = Installation::new().await;
    let pool = installation.pool().await;
    // Citus has this table.
    let catalogue = "CREATE TABLE pg_dist_partition (logicalrelid regclass)";
    sqlx::raw_sql(catalogue).execute(&pool).await.expect("made");
    let audit = installation.run("netagg", &["audit"]).await;
    assert_eq!(audit.code, 0, "the extension without distributed tables is accepted: {}", audit.stderr);
    let distribute = "INSERT INTO pg_dist_partition VALUES ('events_raw'), ('event_identity')";
    sqlx::raw_sql(distribute).execute(&pool).await.expect("distributed");
    for (program, arguments) in [
        ("ingestor", &[][..]),
        ("aggregator", &[]),
        ("netagg", &["audit"]),
        ("netagg", &["rebuild", "--from", "2025-01-01", "--to", "2025-01-02"]),
        ("netagg", &["rebuild", "--from", "2025-01-01", "--to", "2025-01-02", "--dry-run"]),
        ("netagg", &["partitions", "ensure"]),
        ("netagg", &["partitions", "drop", "--before", "2015-01"]),
        ("netagg", &["migrate", "up"]),
        ("netagg", &["migrate", "down"]),
        ("netagg", &["limits", "set", "--max-age", "100d"]),
    ] {
        let ended = installation.run(program, arguments).await;
        assert_eq!(ended.code, 2, "{program} {arguments:?}: {}{}", ended.stdout, ended.stderr);
        let is_explained = ["event_identity, events_raw", "distributed", "undistribute_table"];
        assert!(
            is_explained.iter().all(|part| ended.stderr.contains(part)),
            "{program} {arguments:?}: {}",
            ended.stderr
        );
    }
    // Commands that only read are accepted.
    assert_eq!(installation.run("netagg", &["partitions", "list"]).await.code, 0);
    pool.close().await;
}
