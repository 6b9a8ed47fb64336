//! `netagg import`: publishes the events of files to the topic.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::testkit::{EventTemplate, event};
use netagg_core::{Record, Timestamp};
use netagg_testkit::eventually;
use tempfile::TempDir;

use super::installation::{Ended, Installation, PATIENCE, figure};
use crate::support::programs;

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_plain_and_compressed_files_are_stored_and_counted_once_although_they_are_imported_twice() {
    let installation = Installation::new().await;
    let _services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    let folder = TempDir::new().expect("a folder");
    let lines: Vec<_> = (0..300).map(line).collect();
    let (plain, gzipped, zstd) = (&lines[..100], &lines[100..200], &lines[200..]);
    // The names of the files do not show their format, and a file may consist of several compressed parts.
    let files = [
        file(&folder, "plain.gz", plain.concat().as_bytes()),
        file(&folder, "gzip", &[gzip(&gzipped[..40].concat()), gzip(&gzipped[40..].concat())].concat()),
        file(&folder, "zstd.txt", &[pack_zstd(&zstd[..40].concat()), pack_zstd(&zstd[40..].concat())].concat()),
    ];
    for _ in 0..2 {
        for file in &files {
            let ended = import(&installation, file, &[]).await;
            assert_eq!(ended.code, 0, "{}", ended.stderr);
            assert_eq!(figure(&ended.stdout, "events_published"), "100");
            assert_eq!(figure(&ended.stdout, "lines_left_out"), "0");
        }
    }
    installation.drained_and_exact(300).await;
    let published = published(&installation).await;
    assert_eq!(published.len(), 600);
    for (key, value, at) in published {
        let event: serde_json::Value = serde_json::from_str(&value).expect("JSON");
        assert_eq!(key.as_deref(), event["user_id"].as_str(), "the key is the user");
        assert!(lines.contains(&format!("{value}\n")), "the line is unchanged: {value}");
        let age = SystemClock.now().as_micros() - at.expect("a time").as_micros();
        assert!(age < PATIENCE.as_micros() as i64, "the time is the time of the import");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_lines_are_reported_and_left_out_or_with_strict_nothing_is_published() {
    let installation = Installation::new().await;
    let folder = TempDir::new().expect("a folder");
    let old = line(3).replace("2025-10-20", "1999-10-20");
    let escape = "\u{1b}[2J\"x\n";
    let long = format!("{}\n", "x".repeat(3 << 20));
    let [first, second, last] = [1, 2, 4].map(line);
    let lines = ["\u{feff}", &first, "\r\n", "no JSON\n", &second, &old, escape, &long, "\n", last.trim_end()];
    let mixed = file(&folder, "mixed", lines.concat().as_bytes());

    let ended = import(&installation, &mixed, &["--strict"]).await;
    assert_eq!((ended.code, &*ended.stdout), (1, ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("nothing is published"), "{}", ended.stderr);
    assert_eq!(published(&installation).await, []);
    let ended = import(&installation, &mixed, &[]).await;
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert_eq!(figure(&ended.stdout, "events_published"), "3");
    assert_eq!(figure(&ended.stdout, "lines_left_out"), "4");
    for line in
        ["mixed:3: left out: malformed_json", "mixed:5: left out: too_old", "mixed:6: ", "mixed:7: left out: too_long"]
    {
        assert!(ended.stderr.contains(line), "{line} in {}", ended.stderr);
    }
    assert!(!ended.stderr.contains('\u{1b}'), "{:?}", ended.stderr);
    let mut values: Vec<_> = published(&installation).await.into_iter().map(|(_, value, _)| value).collect();
    values.sort();
    assert_eq!(values, [first, second, last].map(|line| line.trim_end().to_owned()));

    // Of many invalid lines, the first lines are reported one by one, and all lines are counted.
    let bad = file(&folder, "bad", &b"bad\n".repeat(10_000));
    let ended = import(&installation, &bad, &[]).await;
    assert!(ended.stderr.contains("bad:20: ") && !ended.stderr.contains("bad:21: "), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("9980 more lines left out; 10000 in total: 10000 malformed_json"),
        "{}",
        ended.stderr
    );

    let good = file(&folder, "good", line(5).as_bytes());
    assert_eq!(import(&installation, &good, &["--strict"]).await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_about_unreadable_input_give_the_reason() {
    let installation = Installation::new().await;
    let folder = TempDir::new().expect("a folder");
    let good = file(&folder, "good", line(0).as_bytes());
    for (path, more, expected) in [
        (Path::new("/no/such/file"), &[][..], "/no/such/file: the input cannot be read"),
        (folder.path(), &[], "it is a directory"),
        (Path::new("-"), &["--strict"], "stdin with --strict"),
        (&good, &["--from-line", "3"], "--from-line 3"),
        (&good, &["--from-line", "0"], "--from-line"),
    ] {
        let ended = import(&installation, path, more).await;
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{expected} in {}", ended.stderr);
    }
    assert_eq!(published(&installation).await, []);

    let lines: Vec<_> = (0..20_000).map(line).collect();
    let packed = gzip(&lines.concat());
    let cut = file(&folder, "cut", &packed[..packed.len() / 2]);
    let ended = import(&installation, &cut, &[]).await;
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("the gzip data end before they are complete"), "{}", ended.stderr);
    let before = line_to_continue_with(&ended.stderr) - 1;
    assert!(before > 0 && ended.stderr.contains(&format!("cut:{}: ", before + 1)), "{}", ended.stderr);
    assert_eq!(published(&installation).await.len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn variants_of_compressed_and_plain_input_are_read_from_a_file_and_from_stdin() {
    let installation = Installation::new().await;
    let folder = TempDir::new().expect("a folder");
    let lines: Vec<_> = (0..20).map(line).collect();
    let (whole, [first, second]) = (lines.concat(), [lines[..10].concat(), lines[10..].concat()]);
    let mark = "\u{feff}";
    let padding = |count| vec![0; count];
    for (name, content) in [
        ("padded.gz", [gzip(&whole), padding(10_240)].concat()),
        ("members.gz", [gzip(&first), gzip(""), padding(512), gzip(&second), padding(1)].concat()),
        ("frames.zst", [pack_zstd(&first), pack_zstd(""), pack_zstd(&second), padding(7)].concat()),
        ("long27.zst", pack_zstd_long(&whole, 27)),
        ("long31.zst", pack_zstd_long(&whole, 31)),
        ("mark", [mark, &whole].concat().into_bytes()),
        ("marks.gz", [gzip(&[mark, &first].concat()), gzip(&[mark, &second].concat())].concat()),
        ("crlf", whole.replace('\n', "\r\n").into_bytes()),
        ("no_end", whole.trim_end().to_owned().into_bytes()),
        ("padded", [whole.as_bytes(), &padding(4_096)].concat()),
    ] {
        let path = file(&folder, name, &content);
        let from_stdin = format!("<{}", path.display());
        for ended in [
            import(&installation, &path, &["--strict"]).await,
            installation.run_in_shell(&["import", "-"], &from_stdin).await,
        ] {
            assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{name}");
            assert_eq!(figure(&ended.stdout, "events_published"), "20", "{name}");
        }
        let demo = installation.run("netagg", &["demo", "--input", path.to_str().expect("a path")]).await;
        assert_eq!(demo.code, 0, "{name}: {}", demo.stderr);
        assert!(demo.stdout.contains("20 events"), "{name}: {}", demo.stdout);
    }
    for (name, content) in
        [("empty", vec![]), ("empty.gz", gzip("")), ("empty.zst", pack_zstd("")), ("zeros", padding(9))]
    {
        let ended = import(&installation, &file(&folder, name, &content), &[]).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{name}");
        assert_eq!(figure(&ended.stdout, "events_published"), "0", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsupported_format_is_one_error_with_a_remedy_and_nothing_is_published() {
    let installation = Installation::new().await;
    let folder = TempDir::new().expect("a folder");
    let lines: Vec<_> = (0..50).map(line).collect();
    let array = format!("[{}]", lines.join(","));
    let pretty = lines.concat().replace(',', ",\n");
    let utf_16: Vec<_> = lines.concat().encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (name, content, format, advice) in [
        ("events.xz", b"\xfd7zXZ\0\0\x04".to_vec(), "compressed with xz", "xz -dc"),
        ("events.bz2", b"BZh91AY&SY".to_vec(), "compressed with bzip2", "bzip2 -dc"),
        ("events.zip", b"PK\x03\x04".to_vec(), "a zip archive", "unzip -p FILE"),
        ("utf16", utf_16.clone(), "UTF-16", "iconv -f UTF-16LE -t UTF-8"),
        ("mark16", [b"\xff\xfe", &utf_16[..]].concat(), "UTF-16", "iconv -f UTF-16 -t UTF-8"),
        ("array", array.clone().into_bytes(), "a JSON array", "jq -c '.[]'"),
        ("array.gz", gzip(&array), "a JSON array", "gzip -dc FILE | jq -c '.[]'"),
        ("pretty", pretty.into_bytes(), "over several lines", "jq -c ."),
        (
            "again.gz.zst",
            zstd::encode_all(&*gzip(&array), 1).expect("packed"),
            "compressed with gzip",
            "zstd -dc FILE | gzip",
        ),
    ] {
        let path = file(&folder, name, &content);
        let from_stdin = format!("<{}", path.display());
        for (command, ended) in [
            ("| netagg import -", import(&installation, &path, &[]).await),
            ("| netagg import -", import(&installation, &path, &["--strict"]).await),
            ("| netagg import -", installation.run_in_shell(&["import", "-"], &from_stdin).await),
            (
                "| netagg demo --input -",
                installation.run("netagg", &["demo", "--input", path.to_str().expect("a path")]).await,
            ),
        ] {
            assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{name}: {}", ended.stderr);
            assert_eq!(ended.stderr.lines().count(), 1, "{name}: {}", ended.stderr);
            for part in [format, advice, command] {
                assert!(ended.stderr.contains(part), "{name}: {part} in {}", ended.stderr);
            }
        }
    }
    assert_eq!(published(&installation).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_compressed_data_are_reported_and_left_out() {
    let installation = Installation::new().await;
    let folder = TempDir::new().expect("a folder");
    let path = file(&folder, "signed.gz", &[gzip(&line(0)), b"signature\n".to_vec()].concat());
    let ended = import(&installation, &path, &["--strict"]).await;
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("nothing is published"), "{}", ended.stderr);
    let ended = import(&installation, &path, &[]).await;
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("signed.gz:2: left out: trailing_bytes: 10 bytes after"), "{}", ended.stderr);
    assert_eq!(figure(&ended.stdout, "events_published"), "1");
    assert_eq!(published(&installation).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_import_can_be_continued_and_the_events_of_a_user_stay_in_order() {
    const LINES: usize = 200_000;
    let installation = Installation::new().await;
    let folder = TempDir::new().expect("a folder");
    let lines: Vec<_> = (0..LINES).map(line).collect();
    let path = file(&folder, "many", lines.concat().as_bytes());
    let mut process = installation.command(&["import", path.to_str().expect("a path")]);
    eventually(PATIENCE, "events arrive", async || {
        if installation.offsets().await > 0 { Ok(()) } else { Err("none".to_owned()) }
    })
    .await;
    process.terminate();
    assert_eq!(process.code(PATIENCE).await, 1, "{}", process.stderr());
    let at = line_to_continue_with(&process.stderr());
    assert!((2..LINES).contains(&at), "{}", process.stderr());

    let ended = import(&installation, &path, &["--from-line", &at.to_string()]).await;
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(figure(&ended.stdout, "events_published"), (LINES + 1 - at).to_string());
    let mut of_user = BTreeMap::<_, Vec<String>>::new();
    let mut all = 0;
    for (key, value, _) in published(&installation).await {
        let values = of_user.entry(key).or_default();
        // The interrupted import may have published some events after this line, too.
        if !values.contains(&value) {
            values.push(value);
            all += 1;
        }
    }
    assert_eq!(all, LINES);
    let mut expected = BTreeMap::<_, Vec<String>>::new();
    for (number, line) in lines.iter().enumerate() {
        expected.entry(Some(user(number))).or_default().push(line.trim_end().to_owned());
    }
    assert!(of_user == expected, "the events of a user are in the order of the file");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_from_a_pipe_are_published_when_they_arrive() {
    let installation = Installation::new().await;
    let names = ["KAFKA_BROKERS", "KAFKA_TOPIC"];
    let mut process = Command::new(programs::path("netagg"))
        .args(["import", "-"])
        .env_clear()
        .envs(names.map(|name| (name, installation.variable(name))))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("started");
    let mut input = process.stdin.take().expect("a pipe");
    let mut count = 0;
    for more in [1, 20, 1] {
        for _ in 0..more {
            count += 1;
            input.write_all(line(count).as_bytes()).expect("written");
        }
        eventually(PATIENCE, "the lines are published", async || match published(&installation).await.len() {
            found if found == count => Ok(()),
            found => Err(format!("{found} of {count}")),
        })
        .await;
    }
    drop(input);
    let code = eventually(Duration::from_secs(30), "the import ends", async || match process.try_wait() {
        Ok(Some(status)) => Ok(status.code()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(code.await, Some(0));
}

fn user(number: usize) -> String {
    format!("user-{}", number % 10_007)
}

/// The event with this number, as a line.
fn line(number: usize) -> String {
    let user = user(number);
    let event = event(EventTemplate { id: number as u128, source: "file", user: &user, ..EventTemplate::default() });
    String::from_utf8(event.encode()).expect("UTF-8") + "\n"
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).expect("packed");
    encoder.finish().expect("packed")
}

fn pack_zstd(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 1).expect("packed")
}

/// Compresses like `zstd --long` with a pipe, whose size is not known.
fn pack_zstd_long(text: &str, window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.window_log(window_log).expect("a window");
    encoder.long_distance_matching(true).expect("matching");
    for part in text.split_inclusive('\n') {
        encoder.write_all(part.as_bytes()).expect("packed");
    }
    encoder.flush().expect("packed");
    encoder.finish().expect("packed")
}

fn file(folder: &TempDir, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).expect("written");
    path
}

async fn import(installation: &Installation, path: &Path, more: &[&str]) -> Ended {
    installation.run("netagg", &[&["import", path.to_str().expect("a path")], more].concat()).await
}

/// The line that an error message names to continue with.
fn line_to_continue_with(stderr: &str) -> usize {
    let (_, after) = stderr.split_once("--from-line ").unwrap_or_else(|| panic!("no line to continue with: {stderr}"));
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// The key, the value and the time of each message on the topic. The messages of each partition are in order.
async fn published(installation: &Installation) -> Vec<(Option<String>, String, Option<Timestamp>)> {
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let parts = |record: Record| {
        let at = record.instant();
        (record.key.map(text), record.value.map(text).unwrap_or_default(), at)
    };
    installation.messages().await.into_iter().map(parts).collect()
}
