//! The HTTP server. It does not use `axum::serve`, which has no limits for connections, for their duration and
//! for the shutdown.

use std::pin::pin;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn;
use futures::StreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::util::MapRequest;

use super::health::unready_router;
use super::host;
use crate::auth::Protection;
use crate::client::Transport;
use crate::connections::{Connections, SPARE_TIMEOUT};
use crate::handlers::overloaded;
use crate::server::Server;
use crate::server_limits::ApiLimits;

impl Server {
    /// Serves HTTP/1.1 on `listener` with [`router`](Self::router) and [`health_router`](Self::health_router), until `shutdown`.
    ///
    /// At the shutdown, running requests may end within [`ApiLimits::stop_timeout`]. Then it returns, and no connection stays
    /// open.
    ///
    /// The drop of the future closes every connection.
    pub async fn serve_http(self, listener: TcpListener, shutdown: CancellationToken) {
        let health = self.health_router();
        let busy_app = health.clone().fallback(async || overloaded());
        let app = health.merge(self.routes(true));
        // The router rejects a request head that is too large with a problem that has the reason. hyper rejects it without a
        // reason, so hyper gets a higher limit.
        let limits = ApiLimits { max_head_bytes: 2 * self.limits.max_head_bytes, ..self.limits };
        let connections = Connections::new(&limits).encrypted_by(&self.protection, Transport::Http);
        serve(listener, app, busy_app, connections.with_spares(), limits, shutdown).await;
    }
}

/// Serves HTTP/1.1 on `listener` like [`Server::serve_http`], for the time before the service has reached its stores: `/healthz`
/// returns 200, `pages` serves its own paths, and every other path returns 503. It returns once `shutdown` is cancelled.
pub async fn serve_unready(
    listener: TcpListener,
    protection: Protection,
    limits: ApiLimits,
    pages: Router,
    shutdown: CancellationToken,
) {
    let connections = Connections::new(&limits).encrypted_by(&protection, Transport::Http);
    let (app, busy_app) = (unready_router(pages), unready_router(Router::new()));
    serve(listener, app, busy_app, connections.with_spares(), limits, shutdown).await;
}

/// Serves HTTP/1.1 with `app`, like [`Server::serve_http`] serves the API. Of `limits`, the limits of connections apply. A
/// request without exactly one valid `Host` is rejected. Mounted routes of the API get the client address, which a rate limit
/// needs.
pub async fn serve_router(listener: TcpListener, app: Router, limits: ApiLimits, shutdown: CancellationToken) {
    let app = app.layer(from_fn(host::check_host));
    serve(listener, app.clone(), app, Connections::new(&limits), limits, shutdown).await;
}

/// Serves regular connections with `app`, and spare connections with `busy_app`.
async fn serve(
    listener: TcpListener,
    app: Router,
    busy_app: Router,
    connections: Connections,
    limits: ApiLimits,
    shutdown: CancellationToken,
) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.idle_timeout).max_header_size(limits.max_head_bytes);
    let mut busy_server = server.clone();
    busy_server.keep_alive(false);

    let incoming = connections.accept(listener);
    let serving = async {
        let open = GracefulShutdown::new();
        {
            // Dropped at the end of the block, so that new connections are refused while the open connections end.
            let mut incoming = pin!(incoming.take_until(shutdown.cancelled()));
            while let Some(connection) = incoming.next().await {
                let client = connection.client();
                let is_spare = connection.is_spare();
                let (server, app) = if is_spare { (&busy_server, &busy_app) } else { (&server, &app) };
                let app = MapRequest::new(app.clone(), move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(client.clone());
                    request
                });
                let app = TowerToHyperService::new(app);
                let connection = open.watch(server.serve_connection(TokioIo::new(connection), app));
                tokio::spawn(async move {
                    let served = async {
                        if let Err(error) = connection.await {
                            tracing::debug!(%error, "an HTTP connection failed");
                        }
                    };
                    if is_spare {
                        // If the client is too slow, the next client gets the spare connection.
                        let _ = tokio::time::timeout(SPARE_TIMEOUT, served).await;
                    } else {
                        served.await;
                    }
                });
            }
        }
        open.shutdown().await;
    };
    connections.run(serving, &shutdown).await;
}
