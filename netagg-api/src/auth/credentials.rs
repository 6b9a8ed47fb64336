//! What callers show of themselves.

use std::fmt;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};

use super::refusal::Refusal;

const API_KEY: &str = "x-api-key";

const UNCLEAR: Refusal = Refusal::BadCredentials("credentials are accepted once: in Authorization or in X-API-Key");
const NOT_BEARER: Refusal = Refusal::BadCredentials("Authorization: Bearer <key or token> is accepted");

/// What one request shows: a key or a token.
pub(super) struct Credentials<'a>(&'a str);

impl<'a> Credentials<'a> {
    /// Those among `headers`. Several are refused: what is between the caller and here might look at the other.
    pub(super) fn of(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let bearers = headers.get_all(AUTHORIZATION).iter().map(bearer);
        let keys = headers.get_all(API_KEY).iter().map(text);
        let mut shown = bearers.chain(keys);
        match (shown.next(), shown.next()) {
            (None, _) => Err(Refusal::NoCredentials),
            (Some(credentials), None) => credentials.map(Self),
            (Some(_), Some(_)) => Err(UNCLEAR),
        }
    }

    pub(super) fn text(&self) -> &'a str {
        self.0
    }
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

fn bearer(value: &HeaderValue) -> Result<&str, Refusal> {
    let (scheme, token) = text(value)?.split_once(' ').ok_or(NOT_BEARER)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim_matches(' ')) } else { Err(NOT_BEARER) }
}

fn text(value: &HeaderValue) -> Result<&str, Refusal> {
    value.to_str().map_err(|_| NOT_BEARER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_shown_once() {
        let of = |headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            Credentials::of(&map).map(|credentials| credentials.text().to_owned())
        };
        for shown in [[("authorization", "Bearer abc")], [("authorization", "bEARER  abc")], [("x-api-key", "abc")]] {
            assert_eq!(of(&shown), Ok("abc".to_owned()), "{shown:?}");
        }
        assert_eq!(of(&[("cookie", "abc")]), Err(Refusal::NoCredentials));
        for shown in ["abc", "Bearer", "Basic abc", ""] {
            assert_eq!(of(&[("authorization", shown)]), Err(NOT_BEARER), "{shown}");
        }
        for twice in [
            [("authorization", "Bearer abc"), ("authorization", "Bearer abc")],
            [("authorization", "Bearer abc"), ("x-api-key", "abc")],
            [("x-api-key", "abc"), ("x-api-key", "abc")],
        ] {
            assert_eq!(of(&twice), Err(UNCLEAR), "{twice:?}");
        }
    }
}
