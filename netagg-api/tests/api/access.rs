//! Authentication, scopes, rate limits, and servers of an application.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use netagg_api::auth::{ApiKey, ApiKeyToken, ApiKeys, MemoryApiKeys, Principal, Scope};
use netagg_api::proto::usage_service_client::UsageServiceClient;
use netagg_api::proto::{GetGlobalAggRequest, GetUserDetailRequest};
use netagg_api::{ApiLimits, Protection, Server};
use netagg_core::memory::{MemoryAggregateStore, MemoryEventStore};
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::usage::{UsageConfig, UsageService};
use netagg_core::{Timestamp, UserId};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::util::MapResponseLayer;

use crate::http_client::{Response as HttpResponse, request_with};
use crate::servers::{SOON, Servers};

const DETAIL: &str = "/api/v1/users/7/detail";
const AGGREGATES: &str = "/api/v1/aggregates?granularity=DAY";

/// Servers with API keys.
struct Guarded {
    servers: Servers,
    keys: Arc<MemoryApiKeys>,
    _refresh_loop: DropGuard,
}

impl Guarded {
    async fn start() -> Self {
        Self::start_with(Protection::default()).await
    }

    async fn start_with(protection: Protection) -> Self {
        let keys = Arc::new(MemoryApiKeys::new());
        let protection = protection.with_keys(keys.clone());
        let stop_refresh = CancellationToken::new();
        tokio::spawn({
            let (protection, stop_refresh) = (protection.clone(), stop_refresh.clone());
            async move { protection.refresh_loop(&stop_refresh).await }
        });
        let servers = Servers::start_protected(protection).await;
        Self { servers, keys, _refresh_loop: stop_refresh.drop_guard() }
    }

    /// Creates a key. The servers accept it after their next read of the keys.
    async fn key(&self, principal: Principal, expires_at: Option<Timestamp>) -> ApiKeyToken {
        let token = ApiKeyToken::generate().expect("random numbers");
        let key = ApiKey::new(&token, principal, SystemClock.now(), expires_at);
        self.keys.create(&key).await.expect("created");
        token
    }

    async fn http(&self, path: &str, headers: &str) -> HttpResponse {
        request_with(self.servers.http, "GET", path, headers).await
    }

    /// Waits until a request with `headers` gets `status`.
    async fn becomes(&self, status: u16, headers: &str) {
        let changed = async {
            while self.http(DETAIL, headers).await.status != status {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, changed).await.expect("the keys are read again");
    }

    async fn grpc(&self) -> UsageServiceClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.servers.grpc)).expect("an address");
        UsageServiceClient::new(endpoint.connect().await.expect("connected"))
    }
}

fn bearer(token: &ApiKeyToken) -> String {
    format!("authorization: Bearer {}\r\n", token.reveal())
}

fn with_key<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
    request
}

fn detail_of(user_id: &str) -> GetUserDetailRequest {
    GetUserDetailRequest { user_id: user_id.to_owned(), ..GetUserDetailRequest::default() }
}

fn by_day() -> GetGlobalAggRequest {
    GetGlobalAggRequest { granularity: "DAY".to_owned(), ..GetGlobalAggRequest::default() }
}

#[tokio::test]
async fn only_callers_with_a_known_key_are_accepted() {
    let guarded = Guarded::start().await;
    let token = guarded.key(Principal::anybody(), None).await;
    let expired = guarded.key(Principal::anybody(), Some(SystemClock.now())).await;
    guarded.becomes(200, &bearer(&token)).await;

    for path in [DETAIL, AGGREGATES, "/nothing/here", "/api/v1/users//detail"] {
        let response = guarded.http(path, "").await;
        assert_eq!(
            (response.status, response.header("www-authenticate")),
            (401, Some(r#"Bearer realm="netagg""#)),
            "{path}"
        );
        response.problem();
    }
    let key = token.reveal();
    assert_eq!(guarded.http(AGGREGATES, &format!("x-api-key: {key}\r\n")).await.status, 200);

    // All invalid credentials get the same response.
    let other = ApiKeyToken::generate().expect("random numbers").reveal();
    let wrong_secret = format!("netagg_{}_{}", token.id(), other.splitn(3, '_').nth(2).expect("a secret"));
    let unknown = ApiKeyToken::generate().expect("random numbers").reveal();
    let mut responses = Vec::new();
    for credentials in [&wrong_secret, &unknown, &expired.reveal(), &key[..key.len() - 2], "netagg_x", "x", ""] {
        let response = guarded.http(DETAIL, &format!("x-api-key: {credentials}\r\n")).await;
        assert_eq!(response.status, 401, "{credentials}");
        assert!(response.header("www-authenticate").expect("a challenge").contains("invalid_token"));
        responses.push(response.body);
    }
    responses.dedup();
    assert_eq!(responses.len(), 1, "{responses:?}");

    // A key is not accepted in the query, twice, or with another scheme.
    assert_eq!(guarded.http(&format!("{AGGREGATES}&key={key}"), "").await.status, 401);
    assert_eq!(guarded.http(DETAIL, &(bearer(&token) + &bearer(&token))).await.status, 401);
    assert_eq!(guarded.http(DETAIL, &format!("authorization: Basic {key}\r\n")).await.status, 401);

    let mut client = guarded.grpc().await;
    client.get_user_detail(with_key(&key, detail_of("7"))).await.expect("accepted");
    for request in [Request::new(detail_of("7")), with_key(&wrong_secret, detail_of("7"))] {
        assert_eq!(client.get_user_detail(request).await.expect_err("rejected").code(), Code::Unauthenticated);
    }
    assert_eq!(client.get_global_agg(by_day()).await.expect_err("rejected").code(), Code::Unauthenticated);
    assert_eq!(client.stream_user_detail(detail_of("7")).await.expect_err("rejected").code(), Code::Unauthenticated);
    // Health is open to callers without credentials, such as load balancers.
    let endpoint = Endpoint::from_shared(format!("http://{}", guarded.servers.grpc)).expect("an address");
    let mut health = HealthClient::new(endpoint.connect().await.expect("connected"));
    health.check(HealthCheckRequest::default()).await.expect("open");
}

#[tokio::test]
async fn a_key_is_limited_to_its_scopes_and_its_user() {
    let guarded = Guarded::start().await;
    let of = |scopes: &[Scope], user_id: Option<&str>| Principal {
        scopes: scopes.iter().copied().collect(),
        user_id: user_id.map(|user| UserId::new(user).expect("valid")),
        ..Principal::anybody()
    };
    let detail = guarded.key(of(&[Scope::DetailRead], None), None).await;
    let aggregates = guarded.key(of(&[Scope::AggregatesRead], None), None).await;
    let own = guarded.key(of(&Scope::ALL, Some("7")), None).await;
    guarded.becomes(200, &bearer(&own)).await;

    let export = "accept: text/csv\r\n";
    for (token, path, headers, status) in [
        (&detail, DETAIL, "", 200),
        (&detail, AGGREGATES, "", 403),
        (&aggregates, DETAIL, "", 403),
        (&aggregates, DETAIL, export, 403),
        // An invalid request of a caller without the scope gets 403, and not the reason why it is invalid.
        (&aggregates, "/api/v1/users/7/detail?limit=0", "", 403),
        (&aggregates, AGGREGATES, "", 200),
        // A cached response is not returned to a caller without the scope.
        (&detail, AGGREGATES, "", 403),
        (&own, AGGREGATES, "", 200),
        (&own, "/api/v1/users/%37/detail", "", 200),
        (&own, "/api/v1/users/8/detail", "", 403),
        (&own, "/api/v1/users/8/detail", export, 403),
        (&own, "/api/v1/users/7%00/detail", "", 400),
        (&own, "/api/v1/users/7/aggregates?granularity=DAY", "", 200),
        (&own, "/api/v1/users/8/aggregates?granularity=DAY", "", 403),
        (&aggregates, "/api/v1/users/7/aggregates?granularity=DAY", "", 403),
    ] {
        let response = guarded.http(path, &(bearer(token) + headers)).await;
        assert_eq!(response.status, status, "{path}: {}", response.body);
        if status == 403 {
            response.problem();
            assert!(response.header("www-authenticate").expect("a challenge").contains("insufficient_scope"));
        }
    }

    let mut client = guarded.grpc().await;
    let denied = |status: tonic::Status| assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    denied(client.get_user_detail(with_key(&aggregates.reveal(), detail_of("7"))).await.expect_err("denied"));
    denied(client.stream_user_detail(with_key(&aggregates.reveal(), detail_of("7"))).await.expect_err("denied"));
    client.get_global_agg(with_key(&aggregates.reveal(), by_day())).await.expect("in its scope");
    denied(client.get_global_agg(with_key(&detail.reveal(), by_day())).await.expect_err("denied"));
    denied(client.get_user_detail(with_key(&own.reveal(), detail_of("8"))).await.expect_err("denied"));
    denied(client.stream_user_detail(with_key(&own.reveal(), detail_of("8"))).await.expect_err("denied"));
    client.get_user_detail(with_key(&own.reveal(), detail_of("7"))).await.expect("the own user");
}

#[tokio::test]
async fn a_revoked_key_is_soon_rejected() {
    let guarded = Guarded::start().await;
    let token = guarded.key(Principal::anybody(), None).await;
    guarded.becomes(200, &bearer(&token)).await;
    guarded.keys.revoke(token.id(), SystemClock.now()).await.expect("revoked");
    guarded.becomes(401, &bearer(&token)).await;
}

#[tokio::test]
async fn callers_over_the_rate_limit_get_429_with_retry_after() {
    let limit = "2/h".parse().expect("valid");
    let proxies = ["127.0.0.0/8".parse().expect("a network")];
    let servers =
        Servers::start_protected(Protection::default().with_rate_limit(limit).with_trusted_proxies(proxies)).await;
    let ask = async |address: &str| {
        let header = format!("x-forwarded-for: {address}\r\n");
        let response = request_with(servers.http, "GET", AGGREGATES, &header).await;
        let quota = ["ratelimit-limit", "ratelimit-remaining"].map(|name| response.header(name).map(str::to_owned));
        (quota, response)
    };
    let quota = |remaining: &str| [Some("2".to_owned()), Some(remaining.to_owned())];
    for (status, remaining) in [(200, "1"), (200, "0"), (429, "0")] {
        let (found, response) = ask("192.0.2.1").await;
        assert_eq!((response.status, found), (status, quota(remaining)));
        let wait = response.header("retry-after").map(|seconds| seconds.parse::<u32>().expect("seconds"));
        assert_eq!(wait.is_some(), status == 429);
        assert!(wait.is_none_or(|wait| (1..=1_800).contains(&wait)), "{wait:?}");
        assert!(response.header("ratelimit-reset").is_some());
        if status == 429 {
            response.problem();
        }
    }
    assert_eq!(ask("192.0.2.2").await.1.status, 200, "another client behind the same proxy");

    // gRPC and HTTP share the count: the limit applies to the whole API, not to one port.
    let endpoint = Endpoint::from_shared(format!("http://{}", servers.grpc)).expect("an address");
    let mut client = UsageServiceClient::new(endpoint.connect().await.expect("connected"));
    let mut request = Request::new(by_day());
    request.metadata_mut().insert("x-forwarded-for", "192.0.2.1".parse().expect("ASCII"));
    let status = client.get_global_agg(request).await.expect_err("too many");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    assert!(status.metadata().contains_key("retry-after"), "{status:?}");
    let mut health = HealthClient::new(endpoint.connect().await.expect("connected"));
    for _ in 0..5 {
        health.check(HealthCheckRequest::default()).await.expect("health has no limit");
    }
}

#[tokio::test]
async fn a_key_has_its_own_limit_and_guesses_count_too() {
    let guarded = Guarded::start_with(Protection::default().with_rate_limit("3/h".parse().expect("valid"))).await;
    let often = Principal { rate_limit: Some("1000/s".parse().expect("valid")), ..Principal::anybody() };
    let token = guarded.key(often, None).await;
    // Some of these requests may be rejected, because the server does not know the key yet.
    let limit = async || guarded.http(AGGREGATES, &bearer(&token)).await.header("ratelimit-limit").map(str::to_owned);
    let known = async {
        while limit().await.as_deref() != Some("1000") {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, known).await.expect("known");
    let mut last = 0;
    for _ in 0..4 {
        last = guarded.http(AGGREGATES, "x-api-key: guessed\r\n").await.status;
    }
    assert_eq!(last, 429);
    assert_eq!(
        guarded.http(AGGREGATES, &bearer(&token)).await.status,
        200,
        "guesses from the same address do not use the quota of a key"
    );
}

#[tokio::test]
async fn responses_have_security_headers_and_only_allowed_origins_may_read_them() {
    let origin = "origin: https://app.example\r\n";
    let servers = Servers::start().await;
    for path in [AGGREGATES, "/nothing", "/api/v1/aggregates"] {
        let response = request_with(servers.http, "GET", path, origin).await;
        assert_eq!(response.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(response.header("referrer-policy"), Some("no-referrer"));
        assert_eq!(response.header("content-security-policy"), Some("default-src 'none'; frame-ancestors 'none'"));
        assert_eq!(response.header("access-control-allow-origin"), None);
    }
    assert_eq!(request_with(servers.http, "OPTIONS", AGGREGATES, origin).await.status, 405);

    let origins = ["https://app.example".parse().expect("a value")];
    let guarded = Guarded::start_with(Protection::default().with_cors_origins(origins)).await;
    let preflight =
        format!("{origin}access-control-request-method: GET\r\naccess-control-request-headers: authorization\r\n");
    let response = request_with(guarded.servers.http, "OPTIONS", AGGREGATES, &preflight).await;
    assert_eq!((response.status, response.header("access-control-allow-origin")), (200, Some("https://app.example")));
    assert!(response.header("access-control-allow-headers").expect("headers").contains("authorization"));
    // A page of an allowed origin may read why it is rejected. A page of another origin may read nothing.
    assert_eq!(
        guarded.http(AGGREGATES, origin).await.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    let other = guarded.http(AGGREGATES, "origin: https://evil.example\r\n").await;
    assert_eq!((other.status, other.header("access-control-allow-origin")), (401, None));
}

/// Serves a router with `axum::serve`, as an application does.
async fn embedded(app: Router, provides_address: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        if provides_address {
            axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
        } else {
            axum::serve(listener, app).await
        }
    });
    address
}

fn api() -> Server {
    let (events, totals) = (Arc::new(MemoryEventStore::new()), Arc::new(MemoryAggregateStore::new()));
    Server::new(Arc::new(UsageService::new(events, totals, UsageConfig::default())))
}

#[tokio::test]
async fn routes_can_be_mounted_in_an_application_with_its_own_paths_middleware_and_fallback() {
    let of_the_application = |mut response: Response| {
        response.headers_mut().insert("x-application", HeaderValue::from_static("yes"));
        response
    };
    let app = Router::new()
        .route("/", get(async || "home"))
        .fallback(async || (StatusCode::NOT_FOUND, "no such page of the application"))
        .nest("/usage", api().with_base_path("/usage").with_overview_page().router())
        .merge(api().router())
        .layer(MapResponseLayer::new(of_the_application));
    let address = embedded(app, false).await;
    for base in ["", "/usage"] {
        let response = request_with(address, "GET", &format!("{base}{AGGREGATES}"), "").await;
        assert_eq!((response.status, response.header("x-application")), (200, Some("yes")), "{base}");
        let description = request_with(address, "GET", &format!("{base}/openapi.json"), "").await.json();
        assert_eq!(description["servers"][0]["url"], if base.is_empty() { "/" } else { base });
    }
    assert_eq!(request_with(address, "GET", "/", "").await.body, "home");
    let page = request_with(address, "GET", "/usage", "").await;
    assert!(page.header("content-security-policy").is_some_and(|policy| !policy.contains("unsafe-inline")));
    for file in ["style.css", "script.js"] {
        let path = format!("/usage/overview/{file}");
        assert!(page.body.contains(&format!("\"{path}\"")), "the page loads {path}: {}", page.body);
        assert_eq!(request_with(address, "GET", &path, "").await.status, 200, "{path}");
    }
    let response = request_with(address, "GET", "/nowhere", "").await;
    assert_eq!((response.status, response.body.as_str()), (404, "no such page of the application"));
}

#[tokio::test]
async fn the_grpc_service_can_be_mounted_in_a_tonic_server() {
    let protection = Protection::default().with_rate_limit("2/h".parse().expect("valid"));
    let usage = api().with_protection(protection).grpc_service();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(usage).serve_with_incoming(incoming));
    let mut client = UsageServiceClient::connect(format!("http://{address}")).await.expect("connected");
    let request = || GetGlobalAggRequest { granularity: "DAY".to_owned(), ..GetGlobalAggRequest::default() };
    for _ in 0..2 {
        client.get_global_agg(request()).await.expect("a response");
    }
    let rejected = client.get_global_agg(request()).await.expect_err("the rate limit applies");
    assert_eq!(rejected.code(), tonic::Code::ResourceExhausted);
    assert!(rejected.metadata().contains_key("retry-after"));
}

#[tokio::test]
async fn a_rate_limit_applies_on_every_server_or_all_requests_are_rejected() {
    let limited = || Protection::default().with_rate_limit("5/h".parse().expect("valid"));
    let app = |protection: &Protection| api().with_protection(protection.clone()).router();
    let ask = async |server: SocketAddr, headers: &str| request_with(server, "GET", AGGREGATES, headers).await;

    let server = embedded(app(&limited()), true).await;
    for at in 0..12 {
        let response = ask(server, "").await;
        assert_eq!(response.status, if at < 5 { 200 } else { 429 }, "{at}");
        assert_eq!(response.header("ratelimit-limit"), Some("5"));
    }
    let trusting = limited().with_trusted_proxies(["127.0.0.0/8".parse().expect("a network")]);
    let server = embedded(app(&trusting), true).await;
    for at in 0..12 {
        let status = ask(server, &format!("x-forwarded-for: 192.0.2.{}\r\n", at % 2)).await.status;
        assert_eq!(status, if at < 10 { 200 } else { 429 }, "{at}");
    }

    // Guesses are limited too. Without a client address even a valid key is rejected, because an accepted key would reveal a
    // correct guess.
    let keys = Arc::new(MemoryApiKeys::new());
    let protection = limited().with_keys(keys.clone());
    let stop_refresh = CancellationToken::new();
    let _refresh_loop = stop_refresh.clone().drop_guard();
    tokio::spawn({
        let (protection, stop_refresh) = (protection.clone(), stop_refresh.clone());
        async move { protection.refresh_loop(&stop_refresh).await }
    });
    let known = async {
        while protection.check().is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, known).await.expect("the keys are read");
    let server = embedded(app(&protection), true).await;
    for at in 0..12 {
        assert_eq!(ask(server, "x-api-key: guessed\r\n").await.status, if at < 5 { 401 } else { 429 }, "{at}");
    }
    for protection in [limited(), trusting, protection] {
        let server = embedded(app(&protection), false).await;
        for headers in ["", "x-api-key: guessed\r\n", "x-forwarded-for: 192.0.2.1\r\n"] {
            let response = ask(server, headers).await;
            assert_eq!(response.status, 500, "{headers}");
            assert!(
                response.problem()["detail"].as_str().expect("a detail").contains("limited by address"),
                "{response:?}"
            );
        }
    }
    // Without a rate limit no client address is needed.
    let server = embedded(app(&Protection::default()), false).await;
    for _ in 0..12 {
        assert_eq!(ask(server, "").await.status, 200);
    }
}

#[tokio::test]
async fn a_rate_limit_applies_on_a_server_of_tonic() {
    let protection = Protection::default().with_rate_limit("5/h".parse().expect("valid"));
    let routes = tonic::service::Routes::from(api().with_protection(protection).router());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(
        tonic::transport::Server::builder().accept_http1(true).add_routes(routes).serve_with_incoming(incoming),
    );
    for at in 0..12 {
        let status = request_with(address, "GET", AGGREGATES, "").await.status;
        assert_eq!(status, if at < 5 { 200 } else { 429 }, "{at}");
    }
}

#[tokio::test]
async fn health_is_open_and_has_no_limit() {
    let guarded = Guarded::start_with(Protection::default().with_rate_limit("1/h".parse().expect("valid"))).await;
    let server = guarded.servers.http;
    for _ in 0..5 {
        let alive = request_with(server, "GET", "/healthz", "").await;
        assert_eq!((alive.status, alive.body.as_str(), alive.header("cache-control")), (200, "ok\n", Some("no-store")));
    }
    let ready = async {
        while request_with(server, "GET", "/readyz", "").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, ready).await.expect("ready");
    let response = request_with(server, "GET", "/readyz", "").await;
    assert_eq!(response.json(), serde_json::json!({"ready": true}));
    assert_eq!(response.header("ratelimit-limit"), None);
    assert_eq!(request_with(server, "HEAD", "/readyz", "").await.body, "");
    assert_eq!(request_with(server, "POST", "/readyz", "").await.status, 405);

    // An application that mounts the API adds the health routes itself.
    let mounted = embedded(api().router(), false).await;
    assert_eq!(request_with(mounted, "GET", "/healthz", "").await.status, 404);
    let mounted = embedded(api().health_router().merge(api().router()), false).await;
    assert_eq!(request_with(mounted, "GET", "/readyz", "").await.status, 200);

    let servers = Servers::start_failing_after(0, ApiLimits::default()).await;
    let response = request_with(servers.http, "GET", "/readyz", "").await;
    assert_eq!((response.status, response.json()), (503, serde_json::json!({"ready": false})));
    assert_eq!(request_with(servers.http, "GET", "/healthz", "").await.status, 200);
}
