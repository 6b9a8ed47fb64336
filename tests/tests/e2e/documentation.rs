//! The pages name the metrics, commands, error kinds, headers and ports that the programs have, and files and tests that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use netagg_api::proto::GetGlobalAggRequest;
use netagg_api::proto::usage_service_client::UsageServiceClient;
use netagg_core::{DeadLetter, InvalidKind};

use super::configuration::run;
use super::installation::Installation;
use crate::support::pages::pages;

const README: &str = include_str!("../../../README.md");
const RUSSIAN: &str = include_str!("../../../README.ru.md");
const EVENTS: &str = include_str!("../../../docs/events.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// A metric with a certificate alone, which these services do not have.
const ONLY_WITH_TLS: &str = "netagg_tls_certificate_expiry_timestamp_seconds";

/// The first cell of each row of the tables in `page` that starts with code.
fn first_cells(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('|').map(|(cell, _)| cell))
}

/// The code in backticks of `text`.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').step_by(2)
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_documents_each_metric_of_the_services_with_its_labels() {
    let table = OPERATIONS.split("### What to do when").next().expect("the tables of metrics");
    let documented: BTreeMap<&str, BTreeSet<&str>> = first_cells(table)
        .filter(|cell| cell.starts_with("netagg_"))
        .map(|cell| {
            let (name, labels) = cell.trim().trim_end_matches('`').split_once('{').unwrap_or((cell, ""));
            let labels = labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()).collect();
            (name.trim().trim_end_matches('`'), labels)
        })
        .collect();

    let exported = exported().await;
    for (name, labels) in &exported {
        let documented = documented.get(name.as_str()).unwrap_or_else(|| panic!("docs/operations.md lacks {name}"));
        let labels: BTreeSet<&str> = labels.iter().map(String::as_str).collect();
        assert_eq!(documented, &labels, "{name}");
    }
    let missing: Vec<_> =
        documented.keys().filter(|name| !exported.contains_key(**name) && **name != ONLY_WITH_TLS).collect();
    assert!(missing.is_empty(), "documented and not exported: {missing:?}");
    for name in words(OPERATIONS, "netagg_") {
        let is_known = documented.keys().any(|documented| documented.starts_with(name.trim_end_matches('_')));
        assert!(is_known, "docs/operations.md names {name}, which no table has");
    }
    // The alerts and dashboards use them with these labels.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/checks/observability");
    let listed = Command::new(script).arg("--list-metrics").output().expect("the check of dashboards and alerts");
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(listed.lines().count() > 30, "{listed}");
    for line in listed.lines() {
        let (sample, used) = line.split_once('{').unwrap_or((line, ""));
        let (metric, mut used) =
            (family(sample), used.trim_end_matches('}').split(',').filter(|label| !label.is_empty()));
        // The metrics of the process have no table, and come from a library.
        if metric != ONLY_WITH_TLS && metric.starts_with("netagg_") {
            let labels = exported.get(metric).unwrap_or_else(|| panic!("no service exports {metric}"));
            assert!(used.all(|label| label == "le" || labels.contains(label)), "{line}: {labels:?}");
        }
    }
}

/// The metrics of the three services after some work, with their labels.
async fn exported() -> BTreeMap<String, BTreeSet<String>> {
    let installation = Installation::new().await;
    let mut adversary = installation.adversary(7);
    adversary.publish(100).await;
    let _services = ["ingestor", "aggregator", "api"].map(|service| installation.start(service));
    installation.withstood(&adversary).await;
    installation.api("/api/v1/aggregates?granularity=DAY").await.expect("a response");
    let mut grpc = UsageServiceClient::connect(format!("http://127.0.0.1:{}", installation.variable("API_GRPC_PORT")))
        .await
        .expect("a connection");
    grpc.get_global_agg(GetGlobalAggRequest::default()).await.expect_err("a granularity is required");
    let mut exported = BTreeMap::<String, BTreeSet<String>>::new();
    for service in ["ingestor", "aggregator", "api"] {
        let (status, text) = installation.ops(service, "/metrics").await.expect("the ops port");
        assert_eq!(status, 200);
        for (name, labels) in text.lines().filter_map(series) {
            exported.entry(name).or_default().extend(labels);
        }
    }
    exported
}

/// The metric of a sample of ours, and its labels.
fn series(line: &str) -> Option<(String, Vec<String>)> {
    let (series, _) = line.rsplit_once(' ').filter(|_| line.starts_with("netagg_"))?;
    let (sample, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.split("\",").filter_map(|label| label.split_once("=\"").map(|(name, _)| name.to_owned()));
    Some((family(sample).to_owned(), labels.filter(|label| label != "le").collect()))
}

/// The metric of a sample: the samples of a histogram have a suffix.
fn family(sample: &str) -> &str {
    let is_histogram = sample.starts_with("netagg_batch_") || sample.contains("_duration_seconds");
    match sample.rsplit_once('_') {
        Some((family, "bucket" | "sum" | "count")) if is_histogram => family,
        _ => sample,
    }
}

/// The words of `page` that start with `prefix`.
fn words<'a>(page: &'a str, prefix: &'static str) -> impl Iterator<Item = &'a str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    page.split(move |c: char| !is_part(c)).filter(move |word| word.starts_with(prefix) && !word.contains("__"))
}

#[test]
fn events_documents_each_kind_of_invalid_message_and_each_header() {
    let documented: BTreeSet<&str> = first_cells(EVENTS).flat_map(code).map(str::trim).collect();
    for kind in InvalidKind::ALL {
        assert!(documented.contains(kind.as_str()), "docs/events.md lacks {}", kind.as_str());
    }
    for header in [
        DeadLetter::ERROR,
        DeadLetter::ERROR_DETAIL,
        DeadLetter::SOURCE_TOPIC,
        DeadLetter::SOURCE_PARTITION,
        DeadLetter::SOURCE_OFFSET,
        DeadLetter::SOURCE_TIMESTAMP,
        DeadLetter::TRUNCATED,
    ] {
        // The rows of the source name its parts alone: `netagg-source-topic`, `-partition`, `-offset`.
        let part = header.rfind('-').map_or(header, |at| &header[at..]);
        assert!(EVENTS.contains(&format!("`{header}`")) || EVENTS.contains(&format!("`{part}`")), "{header}");
    }
}

/// The lines of `page` without the fences of code blocks, and whether each line is in a code block.
fn lines(page: &str) -> impl Iterator<Item = (bool, &str)> {
    let mut in_block = false;
    page.lines().filter_map(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_block ^= is_fence;
        (!is_fence).then_some((in_block, line))
    })
}

/// The code in backticks of the sentences of `page`.
fn inline_code(page: &str) -> impl Iterator<Item = &str> {
    lines(page).filter(|(in_block, _)| !in_block).flat_map(|(_, line)| line.split('`').skip(1).step_by(2))
}

/// The commands `netagg …` in the code blocks and in the code of the sentences of `page`.
fn commands(page: &str) -> Vec<&str> {
    let blocks = lines(page)
        .filter(|(in_block, _)| *in_block)
        .filter_map(|(_, line)| line.trim_start().trim_start_matches("$ ").split(['#', '|', '>']).next());
    blocks.chain(inline_code(page)).filter(|command| command.starts_with("netagg ")).collect()
}

/// The names below `Commands:` of a help.
fn subcommands(help: &str) -> BTreeSet<&str> {
    let (_, list) = help.split_once("\nCommands:\n").unwrap_or_default();
    list.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next()).collect()
}

#[tokio::test]
async fn each_command_of_the_pages_exists_with_its_options() {
    let mut helps = BTreeMap::<String, String>::new();
    let mut checked = 0;
    for (page, command) in pages().iter().flat_map(|(page, text)| commands(text).into_iter().map(move |c| (page, c))) {
        let is_word = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '|' || c == '-');
        let mut words = command.split_whitespace().skip(1).take_while(|word| !word.starts_with("--")).filter(is_word);
        let mut path = String::new();
        loop {
            if !helps.contains_key(&path) {
                let arguments: Vec<&str> = path.split_whitespace().chain(["--help"]).collect();
                helps.insert(path.clone(), run("netagg", &arguments, &[]).await.stdout);
            }
            let known = subcommands(&helps[&path]);
            let Some(word) = words.next().filter(|_| !known.is_empty()) else { break };
            // `a|b` stands for both.
            for name in word.split('|') {
                assert!(known.contains(name), "{page}: `{command}`: unknown command {name}; known: {known:?}");
            }
            path = format!("{path} {}", word.split('|').next().unwrap_or_default());
        }
        for option in command.split_whitespace().filter_map(|word| word.strip_prefix("--")) {
            let option = option.split('=').next().unwrap_or_default();
            assert!(helps[&path].contains(&format!("--{option}")), "{page}: `{command}`: no option --{option}");
        }
        checked += 1;
    }
    assert!(checked > 50, "{checked} commands");
}

#[tokio::test]
async fn both_readmes_name_the_ports_of_the_programs() {
    let mut ports = BTreeSet::new();
    for program in ["ingestor", "aggregator", "api"] {
        let help = run(program, &["--help"], &[]).await.stdout;
        let lines = help.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next().filter(|name| name.starts_with("API_") || name.starts_with("PPROF_"))?;
            name.contains("PORT").then(|| words.next()).flatten()
        });
        ports.extend(lines.map(str::to_owned));
    }
    assert_eq!(ports.len(), 5, "{ports:?}");
    for port in &ports {
        for (page, text) in [("README.md", README), ("README.ru.md", RUSSIAN)] {
            assert!(text.contains(port.as_str()), "{page} lacks the port {port}");
        }
    }
}

/// `{a,b}.rs` stands for `a.rs` and `b.rs`.
fn alternatives(word: &str) -> Vec<String> {
    let Some((before, (inside, after))) =
        word.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return vec![word.to_owned()];
    };
    inside.split(',').flat_map(|part| alternatives(&format!("{before}{part}{after}"))).collect()
}

/// The names of all functions in the source code, and the paths of all files.
fn sources() -> (BTreeSet<String>, Vec<String>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (mut functions, mut files, mut folders) = (BTreeSet::new(), Vec::new(), vec![root.clone()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(&root).expect("a path in the repository").display().to_string();
            if path.is_dir() {
                // Build output, and data of servers.
                let is_source = !["target", ".git", ".netagg"].iter().any(|output| path.ends_with(output));
                folders.extend(is_source.then_some(path));
                files.extend(is_source.then(|| name + "/"));
                continue;
            }
            if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path).expect("source code");
                let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(|c| !is_part(c)).next());
                functions.extend(names.map(str::to_owned));
            }
            files.push(name);
        }
    }
    (functions, files)
}

#[test]
fn each_file_and_each_test_that_a_page_names_exists() {
    let (functions, files) = sources();
    let roots: BTreeSet<&str> = files.iter().filter_map(|file| file.split_once('/')).map(|(root, _)| root).collect();
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let (mut checked_files, mut checked_tests) = (0, 0);
    for (page, text) in pages() {
        let all = text.split(|c: char| c.is_whitespace() || c == '`');
        let names: BTreeSet<&str> =
            inline_code(&text).flat_map(str::split_whitespace).chain(all.filter(|word| word.contains('/'))).collect();
        for word in names {
            let word = word.trim_matches([':', ',', ';', '(', ')', '"', '\'', '.', '|']);
            let (file, function) = word.split_once("::").unwrap_or((word, word));
            let is_file = file.split_once('/').is_some_and(|(root, _)| roots.contains(root));
            for file in alternatives(file).iter().filter(|file| is_file && !file.contains('…')) {
                let file = file.split('#').next().unwrap_or_default();
                let exists = match file.split_once('*') {
                    Some((start, end)) => files.iter().any(|name| name.starts_with(start) && name.ends_with(end)),
                    None => files.iter().any(|name| {
                        let name = name.trim_end_matches('/');
                        name == file.trim_end_matches('/') || name.strip_suffix(".rs") == Some(file)
                    }),
                };
                assert!(exists, "{page} names {file}, which does not exist");
                checked_files += 1;
            }
            // A word with four underscores is too long for a column or a setting. Other paths with `::` are names of Rust.
            let is_long = function.matches('_').count() >= 4 && !function.starts_with("netagg_");
            let is_test = if function == word { is_long } else { is_file || file == "…" };
            if is_test && function.chars().all(is_part) {
                assert!(functions.contains(function), "{page} names {word}, which does not exist");
                checked_tests += 1;
            }
        }
    }
    assert!(checked_files > 50 && checked_tests > 50, "{checked_files} files, {checked_tests} tests");
}
