//! Answers that a client may keep, as long as it asks each time whether they still hold.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::accept::Format;
use crate::answers::Failure;

/// Answers tell of people, and change: nobody on the way keeps them, and the client asks before it uses them again.
const CACHE_CONTROL: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));

/// What a proxy that compresses an answer itself puts to its tag: Apache has `-gzip` and `-br`, Caddy also `-zstd`, others
/// `;gzip` and `--gzip`.
const CODINGS: [&str; 4] = ["gzip", "br", "zstd", "deflate"];

/// An answer in JSON, with its tag.
#[derive(Clone, Debug)]
pub(super) struct Json {
    body: Bytes,
    /// What stands in quotes in `ETag`.
    tag: Box<str>,
}

impl Json {
    pub(super) fn new(body: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| {
            tracing::error!(%error, "an answer cannot be written as JSON");
            Failure::Internal
        })?;
        Ok(Self { tag: tag_of(&body), body: body.into() })
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The whole answer, or just that it is what the client has, which `request` names by its tag.
    pub(super) fn respond(self, request: &HeaderMap) -> Response {
        let is_known = names(request, &self.tag);
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, Format::Json.content_type())], self.body).into_response()
        };
        // Weak, since it is the same whatever the answer is compressed with. Of hexadecimal digits: a value in any case.
        if let Ok(tag) = HeaderValue::try_from(format!("W/\"{}\"", self.tag)) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response.headers_mut().extend([CACHE_CONTROL]);
        response
    }
}

fn tag_of(body: &[u8]) -> Box<str> {
    let mut tag = [0; 16];
    tag.copy_from_slice(&Sha256::digest(body)[..16]);
    format!("{:032x}", u128::from_be_bytes(tag)).into()
}

/// Whether `If-None-Match` of `request` names `tag`, weak or not, also as a proxy on the way changes it.
fn names(request: &HeaderMap, tag: &str) -> bool {
    let lines = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    lines.into_iter().any(|line| {
        // A tag of ours has neither a quote nor a comma in it: others may be taken apart wrongly.
        line.trim() == "*" || line.split(',').any(|known| is_same(known.trim(), tag))
    })
}

fn is_same(known: &str, tag: &str) -> bool {
    let opaque = known.strip_prefix("W/").unwrap_or(known).strip_prefix('"');
    // Apache of before 2.4 has the suffix behind the quote.
    let suffix = opaque.and_then(|opaque| opaque.strip_prefix(tag)).and_then(|rest| match rest.strip_suffix('"') {
        Some(within) => Some(within),
        None => rest.strip_prefix('"'),
    });
    suffix.is_some_and(|suffix| {
        suffix.is_empty()
            || suffix.strip_prefix(['-', ';']).is_some_and(|coding| CODINGS.contains(&coding.trim_start_matches('-')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_recognised_as_proxies_change_it() {
        let tag = "a8e8726b89351c1592dddf55229998b3";
        let names = |lines: &[String]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::IF_NONE_MATCH, HeaderValue::try_from(line).expect("a value"));
            }
            names(&headers, tag)
        };
        for same in [
            format!("\"{tag}\""),
            format!("W/\"{tag}\""),
            format!("W/\"{tag}-gzip\""),
            format!("\"{tag}-gzip\""),
            format!("W/\"{tag}-br\""),
            format!("W/\"{tag}-zstd\""),
            format!("W/\"{tag};gzip\""),
            format!("W/\"{tag}--gzip\""),
            format!("\"{tag}\"-gzip"),
            format!("\"other\", W/\"{tag}-gzip\" ,\"another\""),
            format!("\"a,b\",\"{tag}\""),
            "*".to_owned(),
        ] {
            assert!(names(std::slice::from_ref(&same)), "{same}");
            assert!(names(&["\"other\"".to_owned(), same.clone()]), "{same}");
        }
        for other in [
            String::new(),
            tag.to_owned(),
            format!("\"{tag}"),
            format!("{tag}\""),
            format!("\"{tag}0\""),
            format!("\"{tag}-\""),
            format!("\"{tag}gzip\""),
            format!("\"{tag}-else\""),
            format!("\"x{tag}\""),
            format!("w/\"{tag}\""),
            "\"*\"".to_owned(),
        ] {
            assert!(!names(std::slice::from_ref(&other)), "{other}");
        }
    }
}
