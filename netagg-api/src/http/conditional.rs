//! Answers that a client may keep, as long as it asks each time whether they still hold.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use headers::{ETag, HeaderMapExt, IfNoneMatch};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::accept::Format;
use crate::answers::Failure;

/// Answers tell of people, and change: nobody on the way keeps them, and the client asks before it uses them again.
const CACHE_CONTROL: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));

/// `body` in JSON, or just that it is what the client has, which `request` names by its tag.
pub(super) fn json(request: &HeaderMap, body: &impl Serialize) -> Response {
    let json = match serde_json::to_vec(body) {
        Ok(json) => json,
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            return Failure::Internal.into_response();
        }
    };
    let tag = tag_of(&json);
    let is_known = tag
        .parse::<ETag>()
        .is_ok_and(|tag| request.typed_get::<IfNoneMatch>().is_some_and(|known| !known.precondition_passes(&tag)));
    let tag = (header::ETAG, HeaderValue::try_from(tag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, Format::Json.content_type())], json).into_response()
    };
    if let (name, Ok(tag)) = tag {
        response.headers_mut().insert(name, tag);
    }
    response.headers_mut().extend([CACHE_CONTROL]);
    response
}

/// Weak, since it is the same whatever the answer is compressed with.
fn tag_of(body: &[u8]) -> String {
    let mut tag = [0; 16];
    tag.copy_from_slice(&Sha256::digest(body)[..16]);
    format!("W/\"{:032x}\"", u128::from_be_bytes(tag))
}
