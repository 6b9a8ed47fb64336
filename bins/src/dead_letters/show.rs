//! `netagg dlq show`: a whole dead letter.

use std::fmt::Write;
use std::str::FromStr;

use netagg_core::RecordTimestamp;
use netagg_kafka::{DlqReader, DlqRecord};

use super::text::{print_json, show_position, show_time};
use crate::Failure;
use crate::process::output;
use crate::process::terminal_escape::{is_visible, printable};

/// The position of a dead letter in the dead-letter topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PositionArgument {
    /// The partition.
    pub(crate) partition: i32,
    /// The offset in the partition.
    pub(crate) offset: i64,
}

impl FromStr for PositionArgument {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (partition, offset) = text.split_once(':')?;
            Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        };
        let is_position = |position: &Self| position.partition >= 0 && position.offset >= 0;
        parse()
            .filter(is_position)
            .ok_or("accepted: a partition and an offset, such as 3:17; `netagg dlq list` lists the positions")
    }
}

pub(super) async fn show(
    reader: &DlqReader,
    position: PositionArgument,
    is_json: bool,
    dlq_topic: &str,
) -> Result<(), Failure> {
    let PositionArgument { partition, offset } = position;
    let Some(dead_letter) = reader.get(partition, offset).await? else {
        let reason =
            format!("{partition}:{offset}: {dlq_topic} has no message there; `netagg dlq list` lists the positions");
        return Err(Failure::Usage(reason));
    };
    if is_json {
        return print_json(&dead_letter);
    }
    output::print(as_text(&dead_letter));
    Ok(())
}

fn as_text(dead_letter: &DlqRecord) -> String {
    let DlqRecord { record, origin } = dead_letter;
    let mut lines = vec![
        ("position", show_position(&dead_letter.position())),
        ("time", show_time(record.instant())),
        ("kind", dead_letter.kind().as_str().to_owned()),
    ];
    if let Some(origin) = origin {
        let (topic, position) = (printable(origin.source.partition.topic.as_bytes()), show_position(&origin.source));
        lines.push(("detail", printable(origin.detail.as_bytes())));
        let time = match origin.timestamp {
            Some(RecordTimestamp::OutOfRange(millis)) => format!("timestamp {millis}"),
            timestamp => show_time(timestamp.and_then(RecordTimestamp::instant)),
        };
        lines.push(("source", format!("{topic} {position}, {time}")));
    }
    lines.push(("key", record.key.as_deref().map_or("null".to_owned(), printable)));
    let mut text = String::new();
    // Writing to a string cannot fail.
    for (name, value) in lines {
        let _ = writeln!(text, "{name:8}{value}");
    }
    for header in &record.headers {
        let value = header.value.as_deref().map_or("null".to_owned(), printable);
        let _ = writeln!(text, "header  {}: {value}", printable(header.name.as_bytes()));
    }
    let cut = origin.as_ref().and_then(|origin| origin.truncated);
    let cut = cut.map_or(String::new(), |whole| format!(", cut from {whole}"));
    match record.value.as_deref() {
        None => text.push_str("value   null\n"),
        Some(value) => {
            let _ = writeln!(text, "value   {} bytes{cut}", value.len());
            push_value(&mut text, value);
        }
    }
    text
}

/// Appends the value: as text if a terminal shows all its characters, else as a hex dump.
fn push_value(text: &mut String, value: &[u8]) {
    let is_text = |value: &&str| value.replace("\r\n", "\n").chars().all(|c| is_visible(c) || matches!(c, '\n' | '\t'));
    match std::str::from_utf8(value).ok().filter(is_text) {
        Some(value) => {
            text.push_str(value);
            if !value.is_empty() && !value.ends_with('\n') {
                text.push('\n');
            }
        }
        None => value.chunks(16).enumerate().for_each(|(at, bytes)| {
            let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let ascii =
                bytes.iter().map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { *byte as char } else { '.' });
            let _ = writeln!(text, "{:08x}  {:47}  |{}|", at * 16, hex.join(" "), ascii.collect::<String>());
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_a_partition_and_an_offset() {
        assert_eq!("3:17".parse(), Ok(PositionArgument { partition: 3, offset: 17 }));
        for text in ["", "3", "3:", ":17", "3:-1", "-3:1", "3:17:1", "3/17", "3:99999999999999999999"] {
            assert!(text.parse::<PositionArgument>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_value_is_text_or_a_hex_dump() {
        let shown = |value: &[u8]| {
            let mut text = String::new();
            push_value(&mut text, value);
            text
        };
        assert_eq!(shown("{\"я\":\t1}\r\n\n".as_bytes()), "{\"я\":\t1}\r\n\n");
        assert_eq!(shown(b"no JSON"), "no JSON\n");
        assert_eq!(shown(b""), "");
        assert_eq!(
            shown(b"0123456789abcdef\x1b[2J\xff"),
            "00000000  30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66  |0123456789abcdef|\n\
             00000010  1b 5b 32 4a ff                                   |.[2J.|\n"
        );
        for hidden in [&b"a\rb"[..], b"\x9b", "\u{9b}".as_bytes(), "\u{202e}".as_bytes(), b"\0"] {
            assert!(shown(hidden).starts_with("00000000  "), "{hidden:?}");
        }
    }
}
