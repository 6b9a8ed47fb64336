//! Output streams that cannot be written, and tasks that panic.

use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::process::Stdio;

use netagg_testkit::{eventually, kafka, postgres, redis};

use super::installation::{Installation, PATIENCE, ended};
use crate::support::programs::Process;

const SERVICES: [&str; 3] = ["ingestor", "aggregator", "api"];

/// Waits until a service has lost at least one line of its log.
async fn loses_lines(installation: &Installation, service: &str) {
    eventually(PATIENCE, &format!("{service} counts lost lines"), async || {
        let (_, metrics) = installation.ops(service, "/metrics").await?;
        let lost = metrics.lines().find_map(|line| line.strip_prefix("netagg_log_lines_lost_total "));
        match lost.and_then(|lost| lost.parse::<u64>().ok()) {
            Some(1..) => Ok(()),
            lost => Err(format!("{lost:?} lost")),
        }
    })
    .await;
}

/// Stops each service with SIGTERM, and checks that its exit code is 0.
async fn stop(services: Vec<Process>) {
    for mut service in services {
        service.terminate();
        assert_eq!(service.code(PATIENCE).await, 0, "{}", service.stderr());
    }
}

/// Starts a program whose stderr is a full pipe. Returns the read end of the pipe, too.
fn start_with_full_pipe(installation: &Installation, program: &str) -> (Process, PipeReader) {
    /// The default capacity of a pipe.
    const CAPACITY: usize = 64 << 10;
    let (reader, mut writer) = io::pipe().expect("a pipe");
    writer.write_all(&[b'\n'; CAPACITY]).expect("the pipe has space");
    let process = installation.start_with(program, &[], |command| {
        command.stderr(Stdio::from(writer));
    });
    (process, reader)
}

#[tokio::test(flavor = "multi_thread")]
async fn services_start_survive_an_outage_and_stop_although_their_log_is_full() {
    let server = postgres::Server::start().await;
    let installation = Installation::on(&server.url(), &kafka::brokers().await, &redis::url().await);
    installation.set_up().await;
    let services = SERVICES.map(|name| installation.start_in_shell(name, "", "2>/dev/full"));
    for name in SERVICES {
        installation.readiness(name, 200).await;
    }
    let sent = installation.load().await;
    server.stop().await;
    for name in SERVICES {
        installation.readiness(name, 503).await;
        assert_eq!(installation.ops(name, "/healthz").await.expect("alive").0, 200);
        loses_lines(&installation, name).await;
    }
    server.start_again().await;
    for name in SERVICES {
        installation.readiness(name, 200).await;
    }
    let sent = sent + installation.load().await;
    installation.drained_and_exact(sent).await;
    stop(services.into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_work_although_the_reader_of_their_log_stops_reading_or_ends() {
    let server = postgres::Server::start().await;
    let installation = Installation::on(&server.url(), &kafka::brokers().await, &redis::url().await);
    installation.set_up().await;
    let services = SERVICES.map(|name| start_with_full_pipe(&installation, name));
    for name in SERVICES {
        installation.readiness(name, 200).await;
        loses_lines(&installation, name).await;
    }
    let sent = installation.load().await;
    // The readers read again, so later log lines arrive.
    let (services, mut readers): (Vec<_>, Vec<_>) = services.into_iter().unzip();
    for reader in &mut readers {
        reader.read_exact(&mut [0; 60 << 10]).expect("bytes");
    }
    server.stop().await;
    for (name, reader) in SERVICES.iter().zip(readers) {
        installation.readiness(name, 503).await;
        let line = tokio::task::spawn_blocking(move || {
            BufReader::new(reader).lines().map_while(Result::ok).find(|line| line.contains("not ready"))
        });
        let line = tokio::time::timeout(PATIENCE, line).await.expect("the outage is logged").expect("a reader");
        assert!(line.is_some_and(|line| serde_json::from_str::<serde_json::Value>(&line).is_ok()), "{name}");
    }
    // The readers have ended now.
    server.start_again().await;
    for name in SERVICES {
        installation.readiness(name, 200).await;
    }
    let sent = sent + installation.load().await;
    installation.drained_and_exact(sent).await;
    stop(services).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_work_although_their_log_has_reached_the_largest_file_size() {
    let installation = Installation::new().await;
    // The file still has space for a part of the first line.
    let first = "head -c 1000 /dev/zero >log; ulimit -f 1";
    let services = SERVICES.map(|name| installation.start_in_shell(name, first, "2>>log"));
    for name in SERVICES {
        installation.readiness(name, 200).await;
        loses_lines(&installation, name).await;
    }
    stop(services.into()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_whose_output_cannot_be_written_has_exit_code_1() {
    let installation = Installation::new().await;
    let _ingestor = installation.start("ingestor");
    let full = installation.start_in_shell("generator", "export GENERATOR_DURATION=1s", ">/dev/full 2>&1");
    assert_eq!(ended(full).await.code, 1);
    let unlogged = ended(installation.start_in_shell("generator", "export GENERATOR_DURATION=1s", "2>/dev/full")).await;
    assert_eq!(unlogged.code, 0, "{}", unlogged.stdout);
    // A generator without a time limit ends when its reader ends, and still verifies its events.
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let endless = installation.start_with("generator", &[], |command| {
        command.env("GENERATOR_DURATION", "0").env("GENERATOR_VERIFY_INTERVAL", "500ms").stdout(Stdio::from(writer));
    });
    let endless = ended(endless).await;
    assert_eq!((endless.code, endless.stderr.as_str()), (0, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_is_no_failure_and_lost_output_is_a_failure() {
    let installation = Installation::new().await;
    for arguments in [
        &["audit"][..],
        &["audit", "--json"],
        &["partitions", "ensure"],
        &["partitions", "list"],
        &["partitions", "drop", "--before", "2001-01"],
        &["topic", "create"],
        &["topic", "list"],
        &["topic", "describe"],
        &["limits", "set", "--max-age", "1825d"],
        &["limits", "show"],
        &["keys", "list"],
        &["migrate", "up"],
        &["migrate", "status"],
        &["dlq", "list"],
        &["dlq", "stats"],
        &["dlq", "replay"],
        &["rebuild", "--from", "2025-01-01", "--to", "2025-01-02"],
        &["import", "/dev/null"],
        &["demo", "--events", "1000"],
        &["demo", "--events", "1000", "--serve"],
        &["--help"],
        &["--version"],
        &["limits", "set", "--help"],
    ] {
        let full = installation.run_in_shell(arguments, ">/dev/full").await;
        let reason = full.stderr.trim_end();
        assert_eq!(full.code, 1, "{arguments:?}: {reason}");
        assert!(reason.starts_with("error: ") && reason.lines().count() == 1, "{arguments:?}: {reason}");
        assert!(reason.contains("stdout") && reason.contains("No space left on device"), "{arguments:?}: {reason}");

        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let closed = ended(installation.start_with("netagg", arguments, |command| {
            command.stdout(Stdio::from(writer));
        }))
        .await;
        assert_eq!((closed.code, closed.stderr.as_str()), (0, ""), "{arguments:?}");
        let both = installation.run_in_shell(arguments, ">/dev/full 2>/dev/full").await;
        assert_eq!(both.code, 1, "{arguments:?}");
    }
    for arguments in
        [&["no-such-command"][..], &["limits", "set"], &["audit", "--from", "2025-02-01", "--to", "2025-01-01"]]
    {
        assert_eq!(installation.run_in_shell(arguments, "2>/dev/full").await.code, 2, "{arguments:?}");
    }
    // These commands report invalid lines on stderr.
    for arguments in [&["demo", "--input", "-"][..], &["import", "-"]] {
        let reported = installation.run_in_shell(arguments, "2>/dev/full <<<nonsense").await;
        assert!(matches!(reported.code, 0 | 1), "{arguments:?}: {}", reported.code);
    }
    for program in ["ingestor", "generator"] {
        assert_eq!(ended(Process::start_in_shell(program, "", ">/dev/full", ["--help"], [("", ""); 0])).await.code, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_keeps_its_exit_code_if_its_output_has_no_reader() {
    let installation = Installation::new().await;
    let pool = installation.pool().await;
    let query = "INSERT INTO agg_day (day, type, count_events, sum_duration, sum_bytes_up, sum_bytes_down) \
                 VALUES ('2025-10-20', 'DATA', 1, 0, 0, 0)";
    sqlx::query(query).execute(&pool).await.expect("a total without events");
    pool.close().await;
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let audit = installation.start_with("netagg", &["audit", "--json"], |command| {
        command.stdout(Stdio::from(writer));
    });
    let audit = ended(audit).await;
    assert_eq!((audit.code, audit.stderr.as_str()), (1, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_does_all_its_work_although_its_output_is_lost() {
    let installation = Installation::on(postgres::database().await.url(), &kafka::brokers().await, &redis::url().await);
    assert_eq!(installation.run_in_shell(&["topic", "create"], ">/dev/full").await.code, 1);
    for topic in ["KAFKA_TOPIC", "KAFKA_DLQ_TOPIC"] {
        let described = installation.run("netagg", &["topic", "describe", installation.variable(topic)]).await;
        assert_eq!(described.code, 0, "{}", described.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_could_not_be_printed_is_revoked_or_not_created() {
    let installation = Installation::new().await;
    let file = tempfile::tempdir().expect("a folder");
    let path = file.path().join("keys").to_string_lossy().into_owned();
    for place in [&[][..], &["--file", &path]] {
        let create = [&["keys", "create", "--name", "lost", "--scope", "detail:read"][..], place].concat();
        let full = installation.run_in_shell(&create, ">/dev/full").await;
        assert_eq!(full.code, 1, "{}", full.stderr);
        assert!(full.stderr.contains("No space left") && full.stderr.contains("is revoked"), "{}", full.stderr);
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        let closed = ended(installation.start_with("netagg", &create, |command| {
            command.stdout(Stdio::from(writer));
        }))
        .await;
        assert_eq!(closed.code, 1, "{}", closed.stderr);
        for discarded in [">&-", ">/dev/null"] {
            let lost = installation.run_in_shell(&create, discarded).await;
            assert_eq!(lost.code, 1, "{}", lost.stderr);
            assert!(lost.stderr.contains("no key was created"), "{}", lost.stderr);
        }
        let list = installation.run("netagg", &[&["keys", "list", "--json"][..], place].concat()).await;
        let states: Vec<_> = list.stdout.lines().map(|line| line.contains(r#""state":"revoked""#)).collect();
        assert_eq!(states, [true, true], "{}", list.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_whose_task_panics_is_no_longer_ready() {
    let installation = Installation::new().await;
    for service in ["aggregator", "api"] {
        let mut process = installation.start_with(service, &[], |command| {
            command.env("FAILPOINTS", "reminder=panic");
        });
        eventually(PATIENCE, "readiness reports it", async || {
            let (_, body) = installation.ops(service, "/readyz").await?;
            if body.contains("answers may be stale") { Ok(()) } else { Err(body) }
        })
        .await;
        process.terminate();
        assert_eq!(process.code(PATIENCE).await, 0, "{}", process.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_task_panics_ends_with_1() {
    let installation = Installation::new().await;
    for (service, tasks) in [
        ("ingestor", &["postgres", "kafka", "partitions", "completeness"][..]),
        ("aggregator", &["postgres", "kafka", "redis", "completeness"]),
        ("api", &["postgres", "redis"]),
    ] {
        for task in tasks {
            let mut process = installation.start_with(service, &[], |command| {
                // The checks of readiness run every second, and their third run panics. The other tasks run rarely, so their
                // first run panics.
                let first = if matches!(*task, "partitions" | "completeness") { "panic" } else { "2*off->panic" };
                command.env("FAILPOINTS", format!("{task}={first}"));
            });
            assert_eq!(process.code(PATIENCE).await, 1, "{service}, {task}: {}", process.stderr());
            let stderr = process.stderr();
            assert!(stderr.contains(&format!("error: the task {task} has panicked")), "{service}: {stderr}");
        }
    }
    // The panic is in the job itself or in a batch. Neither is a background task of the service.
    for (service, point) in [
        ("ingestor", "assigned"),
        ("aggregator", "assigned"),
        ("ingestor", "events_copied"),
        // The thread that polls the brokers.
        ("ingestor", "poller"),
        ("aggregator", "poller"),
    ] {
        let mut process = installation.start_with(service, &[], |command| {
            command.env("FAILPOINTS", format!("{point}=panic"));
        });
        let _generator = installation.generator(&[("GENERATOR_DURATION", "1s")]);
        assert_eq!(process.code(PATIENCE).await, 1, "{service}, {point}: {}", process.stderr());
        let expected = if point == "poller" { "the thread that polls the brokers has panicked" } else { "error: " };
        assert!(process.stderr().contains(expected), "{service}, {point}: {}", process.stderr());
    }
    let mut demo = installation.start_with("netagg", &["demo", "--serve", "--events", "1000"], |command| {
        command.env("FAILPOINTS", "batch_done=50*off->panic");
    });
    assert_eq!(demo.code(PATIENCE).await, 1, "{}", demo.stderr());
    let lines = installation.start_with("netagg", &["import", "/dev/null"], |command| {
        command.env("FAILPOINTS", "lines=panic");
    });
    assert_eq!(ended(lines).await.code, 1, "a panic of the reader is not the end of the input");
}
