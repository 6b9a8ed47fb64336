//! All events of a listing, as they are read from the store.

use std::io;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use csv::{Terminator, Writer, WriterBuilder};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use netagg_core::Event;

use super::accept::Format;
use crate::answers::Failure;

const CSV_HEADER: [&str; 10] = [
    "event_id",
    "source_id",
    "user_id",
    "type",
    "started_at",
    "ended_at",
    "duration_sec",
    "bytes_up",
    "bytes_down",
    "meta",
];

/// `events` in `format`. An error among them breaks the connection off, so that nobody takes a part for the whole.
pub(super) fn response(
    format: Format,
    events: impl Stream<Item = Result<Vec<Event>, Failure>> + Send + 'static,
) -> Response {
    let encode = if format == Format::Csv { csv } else { ndjson };
    let head = if format == Format::Csv { csv_header() } else { Ok(Bytes::new()) };
    let chunks = events
        .map_err(|_| io::Error::other("the store cannot be read on"))
        .and_then(move |events| async move { encode(&events) });
    // An empty chunk would be the last one in HTTP/1.1, and is left out.
    let body = stream::iter([head]).chain(chunks).try_filter(|chunk| std::future::ready(!chunk.is_empty()));
    ([(header::CONTENT_TYPE, format.content_type())], Body::from_stream(body)).into_response()
}

fn ndjson(events: &[Event]) -> io::Result<Bytes> {
    let mut lines = Vec::with_capacity(events.iter().map(|event| event.size() as usize + 64).sum());
    for event in events {
        lines.append(&mut event.encode());
        lines.push(b'\n');
    }
    Ok(lines.into())
}

fn csv_header() -> io::Result<Bytes> {
    let mut writer = csv_writer();
    writer.write_record(CSV_HEADER)?;
    finish(writer)
}

/// [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180).
fn csv(events: &[Event]) -> io::Result<Bytes> {
    let mut writer = csv_writer();
    for event in events {
        let fields = event.fields();
        let or_empty = |value: Option<String>| value.unwrap_or_default();
        writer.write_record([
            &*fields.event_id.to_string(),
            &harmless(fields.source_id.as_str()),
            &harmless(fields.user_id.as_str()),
            fields.event_type.as_str(),
            &fields.started_at.to_string(),
            &or_empty(fields.ended_at.map(|at| at.to_string())),
            &or_empty(fields.duration_sec.map(|seconds| seconds.to_string())),
            &fields.bytes_up.to_string(),
            &fields.bytes_down.to_string(),
            fields.meta.as_ref().map_or("", |meta| meta.as_json()),
        ])?;
    }
    finish(writer)
}

/// `text` such that no spreadsheet takes it for a formula: with an apostrophe before it if it might, as
/// [OWASP](https://owasp.org/www-community/attacks/CSV_Injection) has it. A phone number such as `+79161234567` is none.
fn harmless(text: &str) -> String {
    let is_formula = match text.as_bytes() {
        [b'=' | b'@' | b'\t' | b'\r' | b'\n', ..] => true,
        [b'+' | b'-', number @ ..] => number.is_empty() || !number.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if is_formula { format!("'{text}") } else { text.to_owned() }
}

fn csv_writer() -> Writer<Vec<u8>> {
    WriterBuilder::new().terminator(Terminator::CRLF).from_writer(Vec::new())
}

fn finish(writer: Writer<Vec<u8>>) -> io::Result<Bytes> {
    writer.into_inner().map(Bytes::from).map_err(|error| error.into_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_a_formula() {
        for text in ["=1+1", "@sum", "+1-2", "-", "+", "-cmd|' /C calc'!A0", "\t=1", "\r=1", "+7 916"] {
            assert_eq!(harmless(text), format!("'{text}"));
        }
        for text in ["provider-1", "+79161234567", "-5", "1=1", "'", "жук"] {
            assert_eq!(harmless(text), text);
        }
    }
}
