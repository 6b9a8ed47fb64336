//! Responses with an `ETag`. A client may keep such a response, if it checks before each use whether it is still current.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::accept::Format;
use crate::handlers::HandlerError;

/// Responses may contain personal data, and they change. So proxies must not store them, and a client must check a stored
/// response before it uses the response again.
const CACHE_CONTROL: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));

/// The codings that a proxy may append to the tag when it compresses a response itself. Apache appends `-gzip` and `-br`, Caddy
/// also `-zstd`, other proxies `;gzip` and `--gzip`.
const CODINGS: [&str; 4] = ["gzip", "br", "zstd", "deflate"];

/// A response with its tag.
#[derive(Clone, Debug)]
pub(super) struct Tagged {
    content_type: HeaderValue,
    body: Bytes,
    /// The text between the quotes of `ETag`.
    tag: Box<str>,
}

impl Tagged {
    pub(super) fn new(content_type: HeaderValue, body: Bytes) -> Self {
        Self { tag: tag_of(&body), content_type, body }
    }

    pub(super) fn json(body: &impl Serialize) -> Result<Self, HandlerError> {
        let body = serde_json::to_vec(body).map_err(|error| {
            tracing::error!(%error, "cannot encode a response as JSON");
            HandlerError::Internal
        })?;
        Ok(Self::new(Format::Json.content_type(), body.into()))
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// Returns the whole response, or 304 if `request` names its tag in `If-None-Match`.
    pub(super) fn respond(self, request: &HeaderMap) -> Response {
        let is_known = names(request, &self.tag);
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, self.content_type)], self.body).into_response()
        };
        // The tag is weak, because it is the same for every compression of the response. It has only hexadecimal digits, so it
        // is always a valid header value.
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

/// Whether `If-None-Match` of `request` names `tag`, as a weak or strong tag, also if a proxy has appended a coding.
fn names(request: &HeaderMap, tag: &str) -> bool {
    let lines = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|line| line.to_str().ok());
    lines.into_iter().any(|line| {
        // Our tags contain no quote and no comma. Splitting at commas may break other tags, but they do not matter here.
        line.trim() == "*" || line.split(',').any(|known| is_same(known.trim(), tag))
    })
}

fn is_same(known: &str, tag: &str) -> bool {
    let opaque = known.strip_prefix("W/").unwrap_or(known).strip_prefix('"');
    // Apache before 2.4 appends the suffix after the closing quote.
    let suffix = opaque.and_then(|opaque| opaque.strip_prefix(tag)).and_then(|rest| match rest.strip_suffix('"') {
        Some(suffix) => Some(suffix),
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
    fn a_tag_that_a_proxy_changed_is_recognised() {
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
