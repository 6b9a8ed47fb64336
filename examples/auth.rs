//! The API in your own HTTP server. Its routes are mounted below `/usage`, next to your routes, and your middleware wraps all
//! routes. API keys and a rate limit protect the routes of the API. The example prints a key in a `curl` command. It stops on
//! Ctrl-C.
//!
//! `HTTP_ADDRESS=127.0.0.1:8000 cargo run -p netagg-examples --features api --example auth`

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::{Router, routing::get};
use netagg_api::auth::{ApiKey, ApiKeyToken, ApiKeys, MemoryApiKeys, Principal, Scope};
use netagg_api::{Protection, Server};
use netagg_core::BoxError;
use netagg_core::memory::{MemoryAggregateStore, MemoryEventStore};
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::usage::{UsageConfig, UsageService};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Your middleware. It sees every request and response, including the requests and responses of netagg.
async fn stamp(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert("x-served-by", HeaderValue::from_static("my application"));
    response
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // A key that may read totals, but not the events of users. In production `PgApiKeys` stores the keys.
    let (keys, token) = (Arc::new(MemoryApiKeys::new()), ApiKeyToken::generate()?);
    let scopes = [Scope::AggregatesRead].into();
    let principal = Principal { name: "dashboard".to_owned(), scopes, user_id: None, rate_limit: None };
    keys.create(&ApiKey::new(&token, principal, SystemClock.now(), None)).await?;

    let (events, totals) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
    let usage = Arc::new(UsageService::new(events, totals, UsageConfig::default()));
    let protection = Protection::default().with_keys(keys).with_rate_limit("100/m".parse()?);
    let api = Server::new(usage).with_protection(protection.clone()).with_base_path("/usage");
    let app =
        Router::new().route("/", get(async || "my application")).nest("/usage", api.router()).layer(from_fn(stamp));

    let listener = TcpListener::bind(std::env::var("HTTP_ADDRESS").map_err(|_| "HTTP_ADDRESS is not set")?).await?;
    let url = format!("http://{}/usage/api/v1/aggregates?granularity=DAY", listener.local_addr()?);
    println!("curl -i -H 'Authorization: Bearer {}' '{url}'", token.reveal());
    // The rate limit counts requests without a valid key by client address. So the server must pass the addresses to the
    // routes.
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let stop = CancellationToken::new();
    let interrupted = {
        let stop = stop.clone();
        async move {
            let _ = tokio::signal::ctrl_c().await;
            stop.cancel();
        }
    };
    // `refresh_loop` reads the keys again every few seconds. Then the API accepts new keys and rejects revoked keys.
    let serve = axum::serve(listener, app).with_graceful_shutdown(interrupted);
    tokio::join!(serve.into_future(), protection.refresh_loop(&stop)).0?;
    Ok(())
}
