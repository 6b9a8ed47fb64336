//! The information about the client of a connection that handlers use.

use std::net::SocketAddr;

use crate::response_budget::ResponseBudget;

/// The protocol of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    Http,
    Grpc,
}

/// The client of a connection. The server adds it to the extensions of each request.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// The budget for the responses that the client has not taken yet.
    pub(crate) budget: ResponseBudget,
}
