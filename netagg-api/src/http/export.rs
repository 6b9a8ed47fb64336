//! Exports: all events of a user and range as a stream, in NDJSON or CSV.

use std::io;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use csv::{Terminator, Writer, WriterBuilder};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use netagg_core::Event;

use super::accept::Format;
use crate::handlers::HandlerError;

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

/// Streams `events` in `format`. An error in `events` aborts the connection, so a client cannot mistake a part for the complete
/// export.
pub(super) fn response(
    format: Format,
    events: impl Stream<Item = Result<Vec<Event>, HandlerError>> + Send + 'static,
) -> Response {
    let encode = if format == Format::Csv { csv } else { ndjson };
    let head = if format == Format::Csv { csv_header() } else { Ok(Bytes::new()) };
    let chunks = events
        .map_err(|_| io::Error::other("the export cannot continue"))
        .and_then(move |events| async move { encode(&events) });
    // Empty chunks are left out: in HTTP/1.1 an empty chunk marks the end of the body.
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

/// Encodes events as CSV ([RFC 4180](https://www.rfc-editor.org/rfc/rfc4180)) without the header.
fn csv(events: &[Event]) -> io::Result<Bytes> {
    let mut writer = csv_writer();
    for event in events {
        let fields = event.fields();
        let or_empty = |value: Option<String>| value.unwrap_or_default();
        writer.write_record([
            &*fields.event_id.to_string(),
            &escape_formula(fields.source_id.as_str()),
            &escape_formula(fields.user_id.as_str()),
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

/// Prefixes `text` with an apostrophe if a spreadsheet might interpret it as a formula, as
/// [OWASP](https://owasp.org/www-community/attacks/CSV_Injection) recommends. A phone number such as `+79161234567` is not a
/// formula.
fn escape_formula(text: &str) -> String {
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
    fn formulas_are_escaped() {
        for text in ["=1+1", "@sum", "+1-2", "-", "+", "-cmd|' /C calc'!A0", "\t=1", "\r=1", "+7 916"] {
            assert_eq!(escape_formula(text), format!("'{text}"));
        }
        for text in ["provider-1", "+79161234567", "-5", "1=1", "'", "жук"] {
            assert_eq!(escape_formula(text), text);
        }
    }
}
