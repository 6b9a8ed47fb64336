//! What one server takes at most.

use std::time::Duration;

/// What one server takes at most, so that no client can take all of it. The defaults suit a service behind a proxy as
/// well as one in the open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiLimits {
    /// The most connections at a time. Over HTTP a client beyond them waits up to 1 s for a connection to close, then gets
    /// 503 with `Retry-After`. `/healthz` and `/readyz` answer beyond the limit, on [`Self::HEALTH_CONNECTIONS`] more.
    /// Default: 1,024.
    pub max_connections: usize,
    /// The most requests answered at a time; further ones wait for their turn, the newest next. Default: 64.
    pub max_requests: usize,
    /// How long a request waits for its turn before it is told to come again. Default: 200 ms.
    pub turn_timeout: Duration,
    /// The most exports and streams at a time, beside those requests; a further one is told to come again. Default: 16.
    pub max_exports: usize,
    /// The most bytes of answers that clients have not taken yet; one connection may use a quarter of it. Beyond it the
    /// answer is to come again. Default: 48 MiB.
    pub max_untaken_bytes: usize,
    /// The most bytes of an HTTP request's line and headers. Default: 32 KiB.
    pub max_head_bytes: usize,
    /// The most bytes of a request's body. No HTTP request has a use for one. Default: 64 KiB.
    pub max_body_bytes: usize,
    /// How long a request may take before it is answered as unavailable. Default: 10 s.
    pub request_timeout: Duration,
    /// How long a connection may take to send its next request, to take the next part of an answer, and to prove that it
    /// is alive. Longer than the usual idle time of a proxy (60 s), which would else reuse a connection that is just
    /// being closed. Default: 75 s.
    pub idle_timeout: Duration,
    /// How long requests and streams may go on once the server is told to stop; what is left then is cut. Default: 15 s.
    pub stop_timeout: Duration,
}

impl ApiLimits {
    /// Connections of an HTTP server beside [`Self::max_connections`]. They answer `/healthz` and `/readyz` while all others
    /// are taken.
    pub const HEALTH_CONNECTIONS: usize = 16;
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            max_connections: 1_024,
            max_requests: 64,
            turn_timeout: Duration::from_millis(200),
            max_exports: 16,
            max_untaken_bytes: 48 << 20,
            max_head_bytes: 32 * 1_024,
            max_body_bytes: 64 * 1_024,
            request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            stop_timeout: Duration::from_secs(15),
        }
    }
}
