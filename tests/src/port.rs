//! Free TCP ports that several test processes can choose at the same time.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// The range is below the ports that systems use for outgoing connections. While a server is stopped, an outgoing connection
/// could take a port of that other range, even the connection of a client of this server.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A TCP port on this machine for a server of a test. While this value lives, no other test gets the port.
#[derive(Debug)]
pub struct Port {
    number: u16,
    // UDP ports are separate from TCP ports. The bound UDP port with the same number shows other tests that the TCP port is
    // in use.
    _reservation: UdpSocket,
}

impl Port {
    /// A free port.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn reserve() -> Self {
        std::iter::repeat_with(|| rand::random_range(RANGE))
            .take(1_000)
            .find_map(|number| {
                let reservation = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
                // Docker publishes ports on all addresses, so the port must be free on all of them. Dropping the listener frees
                // the port again.
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).ok()?;
                Some(Self { number, _reservation: reservation })
            })
            .expect("no free TCP port")
    }

    /// The number of the port.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }
}
