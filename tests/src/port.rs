//! Free TCP ports that several test processes can choose at the same time.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// Below the ports that systems give to outgoing connections: such a port could be taken while its server is stopped,
/// even by a client that tries to reach it.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A TCP port on this machine that no other test uses for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    // UDP has port numbers of its own: holding the same one there tells other tests that the TCP port is taken.
    _reservation: UdpSocket,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        std::iter::repeat_with(|| rand::random_range(RANGE))
            .take(1_000)
            .find_map(|number| {
                let reservation = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
                // on all addresses, as Docker publishes ports there; nobody listens once this listener is dropped
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).ok()?;
                Some(Self { number, _reservation: reservation })
            })
            .expect("no free TCP port")
    }
}
