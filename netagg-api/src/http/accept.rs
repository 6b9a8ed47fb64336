//! Content negotiation, which chooses the format of a response: [RFC 9110, section 12.5.1](https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1).

use axum::http::{HeaderMap, HeaderValue, header};
use mime::Mime;

use super::problem::Problem;

/// A format of responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    /// One event per line.
    Ndjson,
    Csv,
}

impl Format {
    /// The media type without parameters.
    const fn essence(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }

    pub(super) const fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            _ => self.essence(),
        })
    }
}

/// Returns the format of `offered` that the client prefers, or the first one if the client has no preference.
pub(super) fn negotiate(headers: &HeaderMap, offered: &[Format]) -> Result<Format, Problem> {
    let accepted: Vec<_> = headers.get_all(header::ACCEPT).iter().collect();
    if accepted.is_empty() {
        return Ok(offered[0]);
    }
    let ranges: Vec<Mime> = accepted
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.trim().parse().ok())
        .collect();
    // `max_by` returns the last of equal elements. With the reversed order this is the first offered format.
    let best = offered.iter().rev().max_by(|one, other| quality(&ranges, **one).total_cmp(&quality(&ranges, **other)));
    best.copied().filter(|format| quality(&ranges, *format) > 0.0).ok_or_else(|| {
        let found: Vec<_> = accepted.iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        let names: Vec<_> = offered.iter().map(|format| format.essence()).collect();
        Problem::not_acceptable("Accept", &found.join(", "), &names.join(", "))
    })
}

/// The quality that the client gives to `format`. The most specific matching range decides.
fn quality(ranges: &[Mime], format: Format) -> f32 {
    let matching = ranges.iter().filter_map(|range| {
        let (kind, _) = format.essence().split_once('/')?;
        let specificity = match (range.type_().as_str(), range.subtype().as_str(), range.suffix()) {
            ("*", "*", None) => 0,
            (range, "*", None) if range == kind => 1,
            _ if range.essence_str() == format.essence() => 2,
            _ => return None,
        };
        let quality = range.get_param("q").map_or(1.0, |quality| quality.as_str().parse().unwrap_or(0.0));
        Some((specificity, quality))
    });
    matching.max_by_key(|(specificity, _)| *specificity).map_or(0.0, |(_, quality)| quality)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_range_decides_and_json_is_first() {
        use Format::{Csv, Json, Ndjson};
        for (accept, expected) in [
            (&["*/*"][..], Some(Json)),
            (&[], Some(Json)),
            (&["application/json"], Some(Json)),
            (&["Application/JSON;charset=utf-8"], Some(Json)),
            (&["text/csv"], Some(Csv)),
            (&["text/*"], Some(Csv)),
            (&["application/*"], Some(Json)),
            (&["application/x-ndjson"], Some(Ndjson)),
            (&["text/csv;q=0.5, application/x-ndjson;q=0.6"], Some(Ndjson)),
            (&["text/csv;q=0.5", "application/x-ndjson;q=0.4"], Some(Csv)),
            (&["*/*, application/json;q=0"], Some(Ndjson)),
            (&["text/csv, */*;q=0.1"], Some(Csv)),
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], Some(Json)),
            (&["text/html"], None),
            (&["application/json;q=0"], None),
            (&["application/json;q=no"], None),
            (&["application/vnd.api+json"], None),
            (&["json"], None),
            (&[""], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, HeaderValue::from_static(value));
            }
            assert_eq!(negotiate(&headers, &[Json, Ndjson, Csv]).ok(), expected, "{accept:?}");
        }
    }
}
