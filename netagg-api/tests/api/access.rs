//! Who gets in, and what they may ask.

use std::sync::Arc;
use std::time::Duration;

use netagg_api::Protection;
use netagg_api::proto::usage_service_client::UsageServiceClient;
use netagg_api::proto::{GetGlobalAggRequest, GetUserDetailRequest};
use netagg_core::access::{ApiKey, ApiKeyToken, Principal, Scope};
use netagg_core::memory::MemoryApiKeys;
use netagg_core::ports::{ApiKeys, Clock, SystemClock};
use netagg_core::{Timestamp, UserId};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::http_client::{Answer, request_with};
use crate::servers::{SOON, Servers};

const DETAIL: &str = "/api/v1/users/7/detail";
const AGGREGATES: &str = "/api/v1/aggregates?granularity=DAY";

/// Servers that know some keys.
struct Guarded {
    servers: Servers,
    keys: Arc<MemoryApiKeys>,
    _keeping: DropGuard,
}

impl Guarded {
    async fn start() -> Self {
        let keys = Arc::new(MemoryApiKeys::new());
        let protection = Protection::default().with_keys(keys.clone());
        let keeping = CancellationToken::new();
        tokio::spawn({
            let (protection, keeping) = (protection.clone(), keeping.clone());
            async move { protection.keep_up(&keeping).await }
        });
        let servers = Servers::start_protected(protection).await;
        Self { servers, keys, _keeping: keeping.drop_guard() }
    }

    /// A key that is not only made but known.
    async fn key(&self, principal: Principal, expires_at: Option<Timestamp>) -> ApiKeyToken {
        let token = ApiKeyToken::generate().expect("random numbers");
        let key = ApiKey::new(&token, principal, SystemClock.now(), expires_at);
        self.keys.create(&key).await.expect("kept");
        token
    }

    async fn http(&self, path: &str, headers: &str) -> Answer {
        request_with(self.servers.http, "GET", path, headers).await
    }

    /// Waits until a request with `headers` is answered with `status`.
    async fn becomes(&self, status: u16, headers: &str) {
        let changed = async {
            while self.http(DETAIL, headers).await.status != status {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, changed).await.expect("keys are read again and again");
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
async fn only_who_shows_a_known_key_gets_in() {
    let guarded = Guarded::start().await;
    let token = guarded.key(Principal::anybody(), None).await;
    let expired = guarded.key(Principal::anybody(), Some(SystemClock.now())).await;
    guarded.becomes(200, &bearer(&token)).await;

    for path in [DETAIL, AGGREGATES, "/nothing/here", "/api/v1/users//detail"] {
        let answer = guarded.http(path, "").await;
        assert_eq!(
            (answer.status, answer.header("www-authenticate")),
            (401, Some(r#"Bearer realm="netagg""#)),
            "{path}"
        );
        answer.problem();
    }
    let key = token.reveal();
    assert_eq!(guarded.http(AGGREGATES, &format!("x-api-key: {key}\r\n")).await.status, 200);

    // Whatever is wrong, the answer is the same.
    let other = ApiKeyToken::generate().expect("random numbers").reveal();
    let wrong_secret = format!("netagg_{}_{}", token.id(), other.splitn(3, '_').nth(2).expect("a secret"));
    let unknown = ApiKeyToken::generate().expect("random numbers").reveal();
    let mut answers = Vec::new();
    for shown in [&wrong_secret, &unknown, &expired.reveal(), &key[..key.len() - 2], "netagg_x", "x", ""] {
        let answer = guarded.http(DETAIL, &format!("x-api-key: {shown}\r\n")).await;
        assert_eq!(answer.status, 401, "{shown}");
        assert!(answer.header("www-authenticate").expect("a challenge").contains("invalid_token"));
        answers.push(answer.body);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");

    // Neither in the query, nor twice, nor by another scheme.
    assert_eq!(guarded.http(&format!("{AGGREGATES}&key={key}"), "").await.status, 401);
    assert_eq!(guarded.http(DETAIL, &(bearer(&token) + &bearer(&token))).await.status, 401);
    assert_eq!(guarded.http(DETAIL, &format!("authorization: Basic {key}\r\n")).await.status, 401);

    let mut client = guarded.grpc().await;
    client.get_user_detail(with_key(&key, detail_of("7"))).await.expect("let in");
    for request in [Request::new(detail_of("7")), with_key(&wrong_secret, detail_of("7"))] {
        assert_eq!(client.get_user_detail(request).await.expect_err("refused").code(), Code::Unauthenticated);
    }
    assert_eq!(client.get_global_agg(by_day()).await.expect_err("refused").code(), Code::Unauthenticated);
    assert_eq!(client.stream_user_detail(detail_of("7")).await.expect_err("refused").code(), Code::Unauthenticated);
    // Health is for whoever asks, as a balancer does.
    let endpoint = Endpoint::from_shared(format!("http://{}", guarded.servers.grpc)).expect("an address");
    let mut health = HealthClient::new(endpoint.connect().await.expect("connected"));
    health.check(HealthCheckRequest::default()).await.expect("open");
}

#[tokio::test]
async fn a_key_may_what_its_scopes_and_its_user_say() {
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
        // A wrong question tells nothing to those who may not ask it.
        (&aggregates, "/api/v1/users/7/detail?limit=0", "", 403),
        (&aggregates, AGGREGATES, "", 200),
        // What others were told a moment ago is not for everybody either.
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
        let answer = guarded.http(path, &(bearer(token) + headers)).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        if status == 403 {
            answer.problem();
            assert!(answer.header("www-authenticate").expect("why").contains("insufficient_scope"));
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
    client.get_user_detail(with_key(&own.reveal(), detail_of("7"))).await.expect("its own");
}

#[tokio::test]
async fn a_revoked_key_is_soon_worth_nothing() {
    let guarded = Guarded::start().await;
    let token = guarded.key(Principal::anybody(), None).await;
    guarded.becomes(200, &bearer(&token)).await;
    guarded.keys.revoke(token.id(), SystemClock.now()).await.expect("revoked");
    guarded.becomes(401, &bearer(&token)).await;
}
