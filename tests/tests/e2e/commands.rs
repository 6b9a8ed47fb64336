//! The command blocks of the pages run, and print output of the form that the pages show.

use std::collections::BTreeSet;
use std::path::Path;

use netagg_core::testkit::{EventTemplate, event};
use netagg_testkit::{Port, eventually};
use serde_json::Value;
use tempfile::TempDir;

use super::installation::{Installation, PATIENCE};
use crate::support::pages::pages;
use crate::support::programs::{Process, path};

/// Programs that no test runs. A block with such a program is left out, unless [`CHANGES`] replaces the program.
const NOT_RUN: [(&str, &str); 16] = [
    ("apt-get", "installs packages"),
    ("cargo", "builds the programs; the tests run built programs"),
    ("deploy/release/check-version", "needs the tag of a release"),
    ("docker", "needs Docker"),
    ("git", "needs another repository, or changes this one"),
    ("go", "needs Go; the module `ops` reads both profiles"),
    ("grpcurl", "needs grpcurl; the module `protection` and the tests of netagg-api send requests over gRPC"),
    ("helm", "needs Helm and a cluster; `deploy/checks/helm` renders the chart"),
    ("install", "writes to the system"),
    ("journalctl", "needs systemd"),
    ("kafka-consumer-groups.sh", "needs the tools of Kafka; the module `backup` resets offsets, too"),
    ("kubectl", "needs a cluster"),
    ("make", "builds, or starts other services"),
    ("rpk", "needs Redpanda"),
    ("systemctl", "needs systemd"),
    ("systemd-run", "needs systemd"),
];

/// Blocks that are left out for another reason: the page, a text of the block, and the reason.
const LEFT_OUT: [(&str, &str, &str); 1] =
    [("docs/modes.md", "INGESTOR_MODE=combined ingestor", "runs until it is stopped; the module `mode` runs the same")];

/// The page, a text of its commands, and the text that takes its place.
const CHANGES: [(&str, &str, &str); 17] = [
    // It runs until it is stopped. The module `demo` runs it.
    ("README.md", "cargo demo --serve", ":"),
    ("README.md", "cargo demo --input", "netagg demo --input"),
    ("README.md", "cargo demo", "netagg demo --events 2000"),
    ("README.md", "make native-up", ":"),
    ("README.md", "cargo build --release -p netagg", ":"),
    ("README.md", "export PATH=\"$PWD/target/release:$PATH\"", ":"),
    ("README.md", "GENERATOR_EVENTS_PER_SEC=5000", "GENERATOR_EVENTS_PER_SEC=500 GENERATOR_VERIFY_INTERVAL=500ms"),
    ("README.md", "GENERATOR_DURATION=60s", "GENERATOR_DURATION=2s"),
    ("README.md", "postgres://app_user:app_password@localhost/network_events", "$DATABASE_URL"),
    ("README.md", "grpcurl -plaintext localhost:9090 list", ":"),
    ("bins/README.md", "cargo install --path bins", ":"),
    ("bins/README.md", "netagg demo", "netagg demo --events 2000"),
    ("docs/dead-letters.md", "dlq show 3:17", "dlq show $(netagg dlq list --limit 1 | awk 'NR == 4 { print $2 }')"),
    // Without the file .curlrc, which lets curl fail at an error.
    ("docs/api.md", "curl 'http://localhost:8000/api/v1/users/123456789/detail?limit=0", LIMIT_0),
    ("docs/security.md", "--expires-in 90d", "--expires-in 90d | sed 's/^netagg_[^_]*_.*/netagg_<id>_<secret>/'"),
    (
        "docs/security.md",
        "key.pem api",
        "key.pem api & until curl -qsk https://localhost:8000/healthz; do sleep 0.1; done",
    ),
    (
        "docs/operations.md",
        "curl -s localhost:6062/readyz",
        "DATABASE_URL=postgres://app_user:app_password@localhost:1/network_events api & \
         until curl -qs localhost:6062/readyz | grep refused; do sleep 0.1; done",
    ),
];

const LIMIT_0: &str = "curl -q 'http://localhost:8000/api/v1/users/123456789/detail?limit=0";

/// A block: its page, and its commands with the output that the page shows.
#[derive(Debug)]
struct Block {
    page: String,
    commands: Vec<Command>,
}

#[derive(Debug, Default)]
struct Command {
    text: String,
    output: String,
}

impl Block {
    fn contains(&self, text: &str) -> bool {
        self.commands.iter().any(|command| command.text.contains(text))
    }

    /// The names of programs that no test runs.
    fn not_run(&self) -> impl Iterator<Item = &'static str> {
        let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '/');
        let lines = self.commands.iter().flat_map(|command| command.text.lines());
        let code = lines.map(|line| line.split(" #").next().unwrap_or_default());
        let words: BTreeSet<_> = code.flat_map(|line| line.split(|c| !is_of_word(c))).collect();
        NOT_RUN.iter().map(|(program, _)| *program).filter(move |program| words.contains(program))
    }

    fn is_left_out(&self) -> bool {
        LEFT_OUT.iter().any(|(page, text, _)| self.page == *page && self.contains(text))
    }

    /// Applies [`CHANGES`]. Adds the numbers of the applied changes to `used`.
    fn change(&mut self, used: &mut BTreeSet<usize>) {
        for (number, (page, from, to)) in CHANGES.iter().enumerate() {
            if self.page == *page && self.contains(from) {
                used.insert(number);
                self.commands.iter_mut().for_each(|command| command.text = command.text.replace(from, to));
            }
        }
    }

    /// Runs the commands in a shell, one after the other, until a command fails. Compares each output that the page shows;
    /// words with a digit may differ if they have at least `may_differ` characters.
    async fn run(&self, variables: &[(String, String)], ports: &[(String, String)], folder: &Path, may_differ: usize) {
        // A record separator ends the output of a command.
        let mut script = format!(
            "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT\ncd '{}'\n",
            folder.display()
        );
        for command in &self.commands {
            let text = ports.iter().fold(command.text.clone(), |text, (from, to)| text.replace(from, to));
            script += &format!("{text}\nprintf '\\036'\n");
        }
        let programs = path("netagg");
        let programs = programs.parent().expect("a folder").display();
        let search = std::env::var("PATH").expect("the variable");
        // The file .curlrc in the folder lets curl fail at an error.
        let own = [("PATH", format!("{programs}:{search}")), ("CURL_HOME", folder.display().to_string())];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        let mut shell = Process::shell(&script, variables.iter().chain(&own).cloned());
        let code = shell.code(PATIENCE).await;
        let (stdout, stderr) = (shell.stdout(), shell.stderr());
        assert_eq!(code, 0, "{}:\n{script}\n{stdout}\n{stderr}", self.page);
        for (command, found) in self.commands.iter().zip(stdout.split('\u{1e}')) {
            if !command.output.is_empty() {
                let [found, shown] = [found, &command.output].map(|output| form(output, may_differ));
                assert_eq!(found, shown, "{}: {}", self.page, command.text);
            }
        }
    }
}

/// The form of an output: words with a digit and at least `length` characters are replaced, such as times, numbers and
/// identifiers. JSON may be on one line or on several lines.
fn form(output: &str, length: usize) -> String {
    // Lines of CSV end with CRLF.
    let output = output.trim().replace("\r\n", "\n");
    let output = serde_json::from_str::<Value>(&output).map_or(output, |value| value.to_string());
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '+');
    let mut form = String::new();
    let mut rest = output.as_str();
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| is_of_word(c) != is_of_word(first)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let is_replaced = is_of_word(first) && word.len() >= length && word.chars().any(|c| c.is_ascii_digit());
        form += if is_replaced { "0" } else { word };
        rest = after;
    }
    form
}

/// The command blocks of a page.
fn blocks(page: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = text.lines();
    // Whether only blank lines have followed the last block.
    let mut is_after_block = false;
    while let Some(line) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else {
            is_after_block &= line.is_empty();
            continue;
        };
        let indent = line.len() - line.trim_start().len();
        let body = lines.by_ref().take_while(|line| line.trim_start() != "```");
        let body: Vec<&str> = body.map(|line| line.get(indent..).unwrap_or_default()).collect();
        let commands = match language {
            "sh" | "bash" => vec![Command { text: body.join("\n"), output: String::new() }],
            "console" => dialogue(&body),
            // The output of the last command.
            "json" if is_after_block => {
                let last = blocks.last_mut().and_then(|block| block.commands.last_mut());
                if let Some(command) = last.filter(|command| command.output.is_empty()) {
                    command.output = body.join("\n");
                }
                is_after_block = false;
                continue;
            }
            _ => continue,
        };
        is_after_block = true;
        blocks.push(Block { page: page.to_owned(), commands });
    }
    blocks
}

/// The commands after `$ ` and their output. A command continues after a backslash.
fn dialogue(lines: &[&str]) -> Vec<Command> {
    let mut commands: Vec<Command> = Vec::new();
    for line in lines {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(text), _) => commands.push(Command { text: text.to_owned(), ..Command::default() }),
            (None, Some(last)) if last.output.is_empty() && last.text.ends_with('\\') => {
                last.text += &format!("\n{line}")
            }
            (None, Some(last)) => last.output += &format!("{line}\n"),
            (None, None) => panic!("output before a command: {line}"),
        }
    }
    commands
}

/// The blocks that tests run, with their changes. Each entry of the lists is used.
fn runnable() -> Vec<Block> {
    // The Russian README has the commands of the English one.
    let pages = pages().into_iter().filter(|(page, _)| page != "README.ru.md");
    let mut all: Vec<Block> = pages.flat_map(|(page, text)| blocks(&page, &text)).collect();
    let mut used = BTreeSet::new();
    all.iter_mut().for_each(|block| block.change(&mut used));
    for (number, (page, from, _)) in CHANGES.iter().enumerate() {
        assert!(used.contains(&number), "{page} has no command with {from}");
    }
    for (program, _) in NOT_RUN {
        assert!(all.iter().any(|block| block.not_run().any(|found| found == program)), "no block runs {program}");
    }
    for (page, text, _) in LEFT_OUT {
        assert!(
            all.iter().any(|block| block.page == page && block.contains(text)),
            "{page} has no command with {text}"
        );
    }
    all.retain(|block| block.not_run().next().is_none() && !block.is_left_out());
    all
}

/// A folder with the files that the pages name.
fn files() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let events = (1..=3).map(|id| event(EventTemplate { id, ..EventTemplate::default() }).encode());
    let events: Vec<String> = events.map(|event| String::from_utf8(event).expect("UTF-8")).collect();
    std::fs::write(folder.path().join("events.ndjson"), events.join("\n")).expect("written");
    std::fs::write(folder.path().join(".curlrc"), "fail\nsilent\nshow-error\n").expect("written");
    let script = "gzip -k events.ndjson; xz -k events.ndjson; cp events.ndjson.xz events.xz; jq -s . events.ndjson >events.json; \
                  iconv -f UTF-8 -t UTF-16 events.ndjson >events.txt";
    let output = std::process::Command::new("bash").args(["-ec", script]).current_dir(folder.path()).output();
    let output = output.expect("a shell");
    let needs =
        "the pages use gzip, xz, jq, iconv, curl, openssl and psql: `deploy/native/install pages` installs them";
    assert!(output.status.success(), "{needs}: {}", String::from_utf8_lossy(&output.stderr));
    folder
}

/// The addresses of the pages, and the addresses that take their place.
fn addresses<const N: usize>(ports: [(&str, &str); N]) -> Vec<(String, String)> {
    ports.map(|(from, to)| (format!("localhost:{from}"), format!("localhost:{to}"))).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_command_block_runs_and_prints_output_of_the_form_that_its_page_shows() {
    let blocks = runnable();
    assert!(blocks.len() > 15, "{blocks:?}");
    let installation = Installation::new().await;
    let variables: Vec<_> = installation.variables().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let ports = addresses([
        ("8000", installation.variable("API_HTTP_PORT")),
        ("9090", installation.variable("API_GRPC_PORT")),
        ("6060", installation.variable("PPROF_PORT_INGESTOR")),
        ("6061", installation.variable("PPROF_PORT_AGGREGATOR")),
        ("6062", installation.variable("PPROF_PORT_API")),
    ]);
    let folder = files();
    // Blocks that start services run first, while no other service has the ports.
    let (alone, others): (Vec<_>, Vec<_>) =
        blocks.iter().filter(|block| block.page != "docs/api.md").partition(|block| block.contains(" & "));
    assert_eq!(alone.len(), 3, "{alone:?}");
    for block in alone {
        block.run(&variables, &ports, folder.path(), 1).await;
    }
    let _services = ["ingestor", "aggregator", "api"].map(|service| installation.start(service));
    for service in ["ingestor", "aggregator", "api"] {
        installation.readiness(service, 200).await;
    }
    installation.load().await;
    for block in others {
        block.run(&variables, &ports, folder.path(), 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_requests_of_the_page_of_the_api_get_the_responses_of_the_page() {
    let reserved = [Port::reserve(), Port::reserve()];
    let [http, grpc] = reserved.each_ref().map(|port| port.number().to_string());
    let _example = Process::start("examples/serve", [&http, &grpc], [("", ""); 0]);
    eventually(PATIENCE, "the example responds", async || {
        reqwest::get(format!("http://127.0.0.1:{http}/healthz")).await.map_err(|error| error.to_string())
    })
    .await;
    let ports = addresses([("8000", &http), ("9090", &grpc)]);
    let folder = files();
    let blocks: Vec<_> = runnable().into_iter().filter(|block| block.page == "docs/api.md").collect();
    assert!(blocks.len() >= 7, "{blocks:?}");
    for block in blocks {
        // A cursor or a tag differs; the events and the figures are those of the page.
        block.run(&[], &ports, folder.path(), 32).await;
    }
}

#[test]
fn both_readmes_have_the_same_commands() {
    let pages = pages();
    let [english, russian] = ["README.md", "README.ru.md"].map(|page| {
        let (_, text) = pages.iter().find(|(name, _)| name == page).expect("the page");
        let lines = blocks(page, text).into_iter().flat_map(|block| block.commands);
        let lines = lines.flat_map(|command| command.text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.map(|line| line.split(" #").next().unwrap_or_default().trim().to_owned()).collect::<Vec<_>>()
    });
    assert!(english.len() > 20, "{english:?}");
    assert_eq!(english, russian);
}
