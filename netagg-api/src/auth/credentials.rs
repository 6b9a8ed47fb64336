//! The credentials in the headers of a request.

use std::fmt;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue};

use super::rejection::Rejection;

const API_KEY: &str = "x-api-key";

const AMBIGUOUS: Rejection =
    Rejection::BadCredentials("credentials are accepted once: in Authorization or in X-API-Key");
const NOT_BEARER: Rejection = Rejection::BadCredentials("Authorization: Bearer <key or token> is accepted");

/// The credentials of one request: a key or a token.
pub(super) struct Credentials<'a>(&'a str);

impl<'a> Credentials<'a> {
    /// Returns the credentials in `headers`. Rejects more than one key or token: a proxy before the server might have checked
    /// another one.
    pub(super) fn of(headers: &'a HeaderMap) -> Result<Self, Rejection> {
        let bearers = headers.get_all(AUTHORIZATION).iter().map(bearer);
        let keys = headers.get_all(API_KEY).iter().map(text);
        let mut found = bearers.chain(keys);
        match (found.next(), found.next()) {
            (None, _) => Err(Rejection::NoCredentials),
            (Some(credentials), None) => credentials.map(Self),
            (Some(_), Some(_)) => Err(AMBIGUOUS),
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

fn bearer(value: &HeaderValue) -> Result<&str, Rejection> {
    let (scheme, token) = text(value)?.split_once(' ').ok_or(NOT_BEARER)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim_matches(' ')) } else { Err(NOT_BEARER) }
}

fn text(value: &HeaderValue) -> Result<&str, Rejection> {
    value.to_str().map_err(|_| NOT_BEARER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_credential_is_accepted() {
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
        assert_eq!(of(&[("cookie", "abc")]), Err(Rejection::NoCredentials));
        for shown in ["abc", "Bearer", "Basic abc", ""] {
            assert_eq!(of(&[("authorization", shown)]), Err(NOT_BEARER), "{shown}");
        }
        for twice in [
            [("authorization", "Bearer abc"), ("authorization", "Bearer abc")],
            [("authorization", "Bearer abc"), ("x-api-key", "abc")],
            [("x-api-key", "abc"), ("x-api-key", "abc")],
        ] {
            assert_eq!(of(&twice), Err(AMBIGUOUS), "{twice:?}");
        }
    }
}
