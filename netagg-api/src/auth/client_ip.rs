//! The client address of a request.

use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap};
use ipnet::IpNet;

use crate::client::Client;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The peer address of the connection, from the extensions that the server set. The server is one of this crate, `axum::serve`
/// with `into_make_service_with_connect_info`, or tonic's.
pub(super) fn peer(extensions: &Extensions) -> Option<IpAddr> {
    let ours = || Some(extensions.get::<Client>()?.address);
    let axums = || Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0);
    #[cfg(feature = "grpc")]
    let tonics = || extensions.get::<tonic::transport::server::TcpConnectInfo>()?.remote_addr();
    #[cfg(not(feature = "grpc"))]
    let tonics = || None::<SocketAddr>;
    ours().or_else(axums).or_else(tonics).map(|address| address.ip())
}

/// The client address that trusted proxies report, otherwise the peer address of the connection.
pub(super) fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(&address));
    let mut client = peer.to_canonical();
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut reported = lines.flat_map(|line| line.to_str().unwrap_or_default().rsplit(','));
    // Starts with the nearest proxy. Each trusted proxy reports the address before it. Addresses that any other client reports
    // may be invented.
    while is_trusted(client) {
        let Some(address) = reported.next().and_then(|text| parse(text.trim())) else { break };
        client = address.to_canonical();
    }
    client
}

/// Parses an address with or without a port.
fn parse(text: &str) -> Option<IpAddr> {
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    text.parse().ok().or_else(in_brackets).or_else(with_port)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::auth::rate_limiter::network_of;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<IpNet> =
            ["10.0.0.0/8", "fd00::/8"].into_iter().map(|network| network.parse().expect("a network")).collect();
        let client = |peer: &str, lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
            }
            let address = client_address(peer.parse().expect("an address"), &headers, &trusted);
            network_of(address).to_string()
        };
        // Any client may send the header.
        assert_eq!(client("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(client("::ffff:10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        // Entries before the first untrusted address may be invented.
        assert_eq!(client("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["1.1.1.1", "198.51.100.7", "10.0.0.2"]), "198.51.100.7");
        assert_eq!(client("10.0.0.1", &["198.51.100.7:4711"]), "198.51.100.7");
        for broken in ["unknown", "", "1.1.1.1,", "1.1.1.1, 999.1.1.1", "_hidden"] {
            assert_eq!(client("10.0.0.1", &[broken]), "10.0.0.1", "{broken}");
        }
        // All addresses of a /64 network count as one client.
        assert_eq!(client("fd00::1", &["2001:db8:1:2:3:4:5:6"]), "2001:db8:1:2::");
        assert_eq!(client("fd00::1", &["[2001:db8:1:2::9]:80"]), "2001:db8:1:2::");
        assert_eq!(client("2001:db8::1:2:3:4", &[]), "2001:db8::");
    }
}
