//! The HTTP server. Not `axum::serve`, which bounds neither connections nor the time they take, nor the stop.

use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn;
use futures::StreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use netagg_core::usage::UsageService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tower::util::MapRequest;

use super::health::unready_router;
use super::{health_router, host, router};
use crate::connections::Connections;
use crate::limits::ApiLimits;
use crate::protection::Protection;
use crate::tls::Transport;

/// Answers HTTP/1.1 on `listener`, by [`router`] and [`health_router`], until `shutdown`, then lets requests that have begun end within
/// [`ApiLimits::stop_timeout`] and returns; no connection is left open.
///
/// Dropping the future cuts every connection.
pub async fn serve_http(
    listener: TcpListener,
    service: Arc<UsageService>,
    protection: Protection,
    limits: ApiLimits,
    shutdown: CancellationToken,
) {
    let app = health_router(service.clone(), &protection).merge(router(service, &protection, &limits));
    // The router refuses a head that is too large by itself, and says why; hyper just does.
    let limits = ApiLimits { max_head_bytes: 2 * limits.max_head_bytes, ..limits };
    let connections = Connections::new(&limits, protection.tls().map(|tls| (tls.clone(), Transport::Http)));
    serve(listener, app, connections, limits, shutdown).await;
}

/// Answers HTTP/1.1 on `listener` as [`serve_http`] does, while what the service is made of is still to be reached:
/// `/healthz` with 200, everything else with 503. It returns once `shutdown` is cancelled.
pub async fn serve_unready(
    listener: TcpListener,
    protection: Protection,
    limits: ApiLimits,
    shutdown: CancellationToken,
) {
    let connections = Connections::new(&limits, protection.tls().map(|tls| (tls.clone(), Transport::Http)));
    serve(listener, unready_router(), connections, limits, shutdown).await;
}

/// Answers HTTP/1.1 by `app` as [`serve_http`] does by the API. Of `limits`, those of connections hold. A request
/// without one valid `Host` is refused.
pub async fn serve_router(listener: TcpListener, app: Router, limits: ApiLimits, shutdown: CancellationToken) {
    let app = app.layer(from_fn(host::checked));
    serve(listener, app, Connections::new(&limits, None), limits, shutdown).await;
}

async fn serve(
    listener: TcpListener,
    app: Router,
    connections: Connections,
    limits: ApiLimits,
    shutdown: CancellationToken,
) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.idle_timeout).max_header_size(limits.max_head_bytes);

    let incoming = connections.accept(listener);
    let serving = async {
        let open = GracefulShutdown::new();
        {
            // Gone at the end of the block, so that new connections are refused while the open ones end.
            let mut incoming = pin!(incoming.take_until(shutdown.cancelled()));
            while let Some(connection) = incoming.next().await {
                let client = connection.connect_info();
                let app = MapRequest::new(app.clone(), move |mut request: Request<Incoming>| {
                    request.extensions_mut().insert(client.clone());
                    request
                });
                let app = TowerToHyperService::new(app);
                let connection = open.watch(server.serve_connection(TokioIo::new(connection), app));
                tokio::spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "an HTTP connection broke off");
                    }
                });
            }
        }
        open.shutdown().await;
    };
    connections.run(serving, &shutdown).await;
}
