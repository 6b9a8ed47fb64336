//! The limits of one server.

use std::time::Duration;

/// The limits of one server, so that no client can use up all its resources. The defaults suit a service behind a proxy, and
/// a service that clients reach directly.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ApiLimits {
    /// The maximum number of open connections. Over HTTP a client beyond this limit waits up to 1 s until a connection
    /// closes, then gets 503 with `Retry-After`. `/healthz` and `/readyz` have [`Self::HEALTH_CONNECTIONS`] additional
    /// connections. Default: 1,024.
    pub max_connections: usize,
    /// The maximum number of requests that run at a time. Further requests wait, and the newest runs next. Default: 64.
    pub max_requests: usize,
    /// How long a request waits before it is rejected as overloaded (503 with `Retry-After`, or `UNAVAILABLE`). Default:
    /// 200 ms.
    pub queue_timeout: Duration,
    /// The maximum number of exports and streams that run at a time, in addition to [`max_requests`](Self::max_requests).
    /// Further ones are rejected as overloaded. Default: 16.
    pub max_exports: usize,
    /// The maximum size of all responses that clients have not taken yet, in bytes. One connection may use a quarter of it.
    /// A request whose response exceeds the limit is rejected as overloaded. Default: 48 MiB.
    pub max_untaken_bytes: usize,
    /// The maximum size of the request line and headers of an HTTP request, in bytes. Default: 32 KiB.
    pub max_head_bytes: usize,
    /// The maximum size of a request body, in bytes. No HTTP request of the API needs a body. Default: 64 KiB.
    pub max_body_bytes: usize,
    /// How long a request may run before it fails as unavailable. Default: 10 s.
    pub request_timeout: Duration,
    /// How long a client may take to send its next request, to take the next part of a response, and to prove that the
    /// connection is alive. It is longer than the usual idle timeout of a proxy (60 s): otherwise the proxy could reuse a
    /// connection while the server closes it. Default: 75 s.
    pub idle_timeout: Duration,
    /// How long requests and streams may run after the shutdown begins. Then the server closes the connections that are
    /// still open. Default: 15 s.
    pub stop_timeout: Duration,
}

impl ApiLimits {
    /// Connections of an HTTP server in addition to [`Self::max_connections`]. They serve `/healthz` and `/readyz` while all
    /// other connections are in use.
    pub const HEALTH_CONNECTIONS: usize = 16;
}

impl Default for ApiLimits {
    fn default() -> Self {
        Self {
            max_connections: 1_024,
            max_requests: 64,
            queue_timeout: Duration::from_millis(200),
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
