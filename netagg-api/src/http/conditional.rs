//! Answers that a client may keep, as long as it asks each time whether they still hold.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headers::{ETag, HeaderMapExt, IfNoneMatch};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::accept::Format;
use crate::answers::Failure;

/// Answers tell of people, and change: nobody on the way keeps them, and the client asks before it uses them again.
const CACHE_CONTROL: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));

/// An answer in JSON, with its tag.
#[derive(Clone, Debug)]
pub(super) struct Json {
    body: Bytes,
    tag: ETag,
}

impl Json {
    pub(super) fn new(body: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| {
            tracing::error!(%error, "an answer cannot be written as JSON");
            Failure::Internal
        })?;
        Ok(Self { tag: tag_of(&body)?, body: body.into() })
    }

    pub(super) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// The whole answer, or just that it is what the client has, which `request` names by its tag.
    pub(super) fn respond(self, request: &HeaderMap) -> Response {
        let is_known = request.typed_get::<IfNoneMatch>().is_some_and(|known| !known.precondition_passes(&self.tag));
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, Format::Json.content_type())], self.body).into_response()
        };
        response.headers_mut().typed_insert(self.tag);
        response.headers_mut().extend([CACHE_CONTROL]);
        response
    }
}

/// Weak, since it is the same whatever the answer is compressed with.
fn tag_of(body: &[u8]) -> Result<ETag, Failure> {
    let mut tag = [0; 16];
    tag.copy_from_slice(&Sha256::digest(body)[..16]);
    format!("W/\"{:032x}\"", u128::from_be_bytes(tag)).parse().map_err(|error| {
        tracing::error!(%error, "an answer's tag cannot be written");
        Failure::Internal
    })
}
