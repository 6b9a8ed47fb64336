//! The check of the `Host` header: [RFC 9112, section 3.2](https://www.rfc-editor.org/rfc/rfc9112#section-3.2).

use std::net::Ipv6Addr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// Rejects an HTTP/1.1 request without `Host`, and every request with several or an invalid `Host`: a proxy may have interpreted
/// such a request differently.
pub(super) async fn check_host(request: Request, next: Next) -> Response {
    if has_valid_host(request.version(), request.headers()) {
        next.run(request).await
    } else {
        Problem::wrong_host().into_response()
    }
}

/// Whether the headers have one valid `Host`, or none where the HTTP version allows it.
fn has_valid_host(version: Version, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        // HTTP/1.0 does not require `Host`, and HTTP/2 sends `:authority` instead.
        (None, _) => version != Version::HTTP_11,
        (Some(host), None) => is_host(host),
        (Some(_), Some(_)) => false,
    }
}

/// Whether the value is a name or an address, with or without a port.
fn is_host(value: &HeaderValue) -> bool {
    let Some(authority) = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok()) else { return false };
    let host = authority.host();
    let port = authority.as_str().strip_prefix(host).and_then(|rest| match rest.strip_prefix(':') {
        Some(port) => Some(port),
        None => rest.is_empty().then_some(""),
    });
    // A user before the host is rejected, because then the authority does not start with the host.
    !host.is_empty() && is_address_or_name(host) && port.is_some_and(is_port)
}

/// Whether the host is a name or an address. Brackets are allowed only around an IPv6 address.
fn is_address_or_name(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => true,
    }
}

/// Whether the text is a port. It may be empty, and must not have a sign.
fn is_port(port: &str) -> bool {
    port.is_empty() || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_valid_host_is_accepted() {
        let is_accepted = |version, hosts: &[&'static [u8]]| {
            let mut headers = HeaderMap::new();
            for host in hosts {
                headers.append(header::HOST, HeaderValue::from_bytes(host).expect("a value"));
            }
            has_valid_host(version, &headers)
        };
        for host in ["test", "api.example:8000", "10.0.0.7", "[::1]:80", "[2001:db8::1]", "my_service.ns", "test:"] {
            assert!(is_accepted(Version::HTTP_11, &[host.as_bytes()]), "{host}");
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
            assert!(!is_accepted(Version::HTTP_11, &[host.as_bytes()]), "{host}");
        }
        assert!(!is_accepted(Version::HTTP_11, &[b"\xff"]));
        assert!(!is_accepted(Version::HTTP_11, &[b"a", b"a"]));
        assert!(!is_accepted(Version::HTTP_11, &[]));
        assert!(is_accepted(Version::HTTP_10, &[]) && is_accepted(Version::HTTP_2, &[]));
        assert!(!is_accepted(Version::HTTP_10, &[b"a b"]));
    }
}
