//! Whom a request is addressed to: [RFC 9112, section 3.2](https://www.rfc-editor.org/rfc/rfc9112#section-3.2).

use std::net::Ipv6Addr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// Refuses a request of HTTP/1.1 without a `Host`, and any with several or an invalid one: a proxy on the way may have
/// read it differently.
pub(super) async fn checked(request: Request, next: Next) -> Response {
    if is_good(request.version(), request.headers()) {
        next.run(request).await
    } else {
        Problem::wrong_host().into_response()
    }
}

fn is_good(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        // HTTP/1.0 need not send one, HTTP/2 sends `:authority`.
        (None, _) => version != Version::HTTP_11,
        (Some(host), None) => is_host(host),
        (Some(_), Some(_)) => false,
    }
}

/// A name or an address, and a port if there is one.
fn is_host(value: &HeaderValue) -> bool {
    let Some(authority) = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok()) else { return false };
    let host = authority.host();
    let port = authority.as_str().strip_prefix(host).and_then(|rest| match rest.strip_prefix(':') {
        Some(port) => Some(port),
        None => rest.is_empty().then_some(""),
    });
    // A user before the host is refused.
    !host.is_empty() && is_address_or_name(host) && port.is_some_and(is_port)
}

/// The brackets are for addresses alone.
fn is_address_or_name(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => true,
    }
}

/// A port may be empty, and has no sign.
fn is_port(port: &str) -> bool {
    port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_valid_host_is_good() {
        let is_good = |version, hosts: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_bytes(host).expect("a value"));
            }
            is_good(version, &headers)
        };
        for host in ["test", "api.example:8000", "10.0.0.7", "[::1]:80", "[2001:db8::1]", "my_service.ns", "test:"] {
            assert!(is_good(Version::HTTP_11, &[host.as_bytes()]), "{host}");
        }
        for host in [
            "",
            ":80",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "user@host",
            "http://host",
            "host:port",
            "host:65536",
            "host:-1",
            "host:+80",
            "[abc]",
            "[10.0.0.7]",
            "[]:80",
            "host:1:2",
            "::1",
            "[::1",
            "a\\b",
            "<a>",
            "a,b c",
        ] {
            assert!(!is_good(Version::HTTP_11, &[host.as_bytes()]), "{host}");
        }
        assert!(!is_good(Version::HTTP_11, &[b"\xff"]));
        assert!(!is_good(Version::HTTP_11, &[b"a", b"a"]));
        assert!(!is_good(Version::HTTP_11, &[]));
        assert!(is_good(Version::HTTP_10, &[]) && is_good(Version::HTTP_2, &[]));
        assert!(!is_good(Version::HTTP_10, &[b"a b"]));
    }
}
