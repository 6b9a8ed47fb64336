//! The client of a connection, as handlers see it.

use std::net::SocketAddr;

use crate::room::Room;

/// The protocol of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Http,
    Grpc,
}

/// The other end of a connection, as an extension of its requests.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// For the answers that it has not taken yet.
    pub(crate) room: Room,
}
