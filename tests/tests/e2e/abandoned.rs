//! When a caller of the API disconnects, the database statement of its request ends, too.

use std::time::Instant;

use futures::FutureExt;
use futures::future::BoxFuture;
use netagg_api::ApiLimits;
use netagg_api::proto::usage_service_client::UsageServiceClient;
use netagg_api::proto::{GetUserAggRequest, GetUserDetailRequest};
use netagg_testkit::{eventually, unique};
use sqlx::{PgPool, Postgres, Transaction};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::installation::{Installation, PATIENCE};

const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'netagg-api' \
                       AND datname = current_database() AND state = 'active' AND wait_event_type = 'Lock'";

/// Inserts 60 MB of events of a user. This is more than the sockets between API and client can hold.
const MANY_EVENTS: &str = "INSERT INTO events_raw (source_id, event_id, user_id, type, started_at, bytes_up, bytes_down, meta) \
     SELECT 'test', gen_random_uuid(), 'many', 'DATA', date_trunc('month', now()) + make_interval(secs => second), \
     0, 0, jsonb_build_object('a', repeat('x', 1000000)) FROM generate_series(1, 60) AS second";

/// Locks the events. While this transaction is open, no statement can read an event.
async fn lock(pool: &PgPool) -> Transaction<'static, Postgres> {
    let mut lock = pool.begin().await.expect("a transaction");
    sqlx::raw_sql("LOCK TABLE events_raw").execute(&mut *lock).await.expect("locked");
    lock
}

/// Waits until statements of the API wait for the lock, or until no statement waits.
async fn statements(pool: &PgPool, wait: bool, call: &str) {
    eventually(PATIENCE, &format!("{call}: statements wait: {wait}"), async || {
        let waiting: i64 = sqlx::query_scalar(WAITING).fetch_one(pool).await.map_err(|error| error.to_string())?;
        if (waiting > 0) == wait { Ok(()) } else { Err(waiting.to_string()) }
    })
    .await;
}

/// Drops a call when its statement waits for the lock. Fails if the statement does not end before the timeout of the request,
/// because the timeout would end it anyway.
async fn give_up(pool: &PgPool, name: &str, begun: Instant, call: impl Future + Send + 'static) -> Result<(), String> {
    let call = tokio::spawn(call.map(drop));
    statements(pool, true, name).await;
    call.abort();
    statements(pool, false, name).await;
    let limit = ApiLimits::default().request_timeout;
    if begun.elapsed() < limit { Ok(()) } else { Err(format!("{name}: the call ended only after {limit:?}")) }
}

/// The name of a call, and the call. It returns whether the API responded that the service is unavailable.
type Call = (&'static str, BoxFuture<'static, bool>);

/// The kinds of calls that read `events_raw`. No other test uses this user, because the tests share a cache.
fn calls(installation: &Installation, grpc: &UsageServiceClient<Channel>, user: &str) -> [Call; 5] {
    let http = |path: &str, accept: &'static str| {
        let asked = get(installation, &format!("/api/v1/users/{user}{path}"), accept);
        asked.map(|response| response.status() == 503).boxed()
    };
    let detail = GetUserDetailRequest { user_id: user.to_owned(), ..GetUserDetailRequest::default() };
    let totals =
        GetUserAggRequest { user_id: user.to_owned(), granularity: "MONTH".to_owned(), ..GetUserAggRequest::default() };
    let address = grpc_address(installation);
    let own = async move { UsageServiceClient::connect(address).await.expect("connected").get_user_agg(totals).await };
    let mut shared = grpc.clone();
    [
        ("a page", http("/detail", "application/json")),
        ("an export", http("/detail", "application/x-ndjson")),
        ("totals", http("/aggregates?granularity=DAY", "application/json")),
        ("totals over gRPC", own.map(|response| response.is_err_and(is_unavailable)).boxed()),
        // The connection of this call is shared and stays open. Only the call is dropped.
        ("a stream", async move { shared.stream_user_detail(detail).await.is_err_and(is_unavailable) }.boxed()),
    ]
}

/// Sends a request with its own client. If the call is dropped, the client is dropped and closes its connection.
fn get(
    installation: &Installation,
    path: &str,
    accept: &'static str,
) -> impl Future<Output = reqwest::Response> + Send + use<> {
    let url = format!("http://127.0.0.1:{}{path}", installation.variable("API_HTTP_PORT"));
    async move { reqwest::Client::new().get(url).header("accept", accept).send().await.expect("a response") }
}

fn is_unavailable(status: Status) -> bool {
    status.code() == Code::Unavailable
}

fn grpc_address(installation: &Installation) -> String {
    format!("http://127.0.0.1:{}", installation.variable("API_GRPC_PORT"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statement_of_a_call_ends_when_its_caller_disconnects() {
    let installation = Installation::new().await;
    let _api = installation.start("api");
    installation.readiness("api", 200).await;
    let grpc = UsageServiceClient::connect(grpc_address(&installation)).await.expect("connected");
    let user = unique("user");
    let pool = installation.pool().await;
    let locked = lock(&pool).await;
    for number in 0..calls(&installation, &grpc, &user).len() {
        eventually(PATIENCE, "a call ends with its caller", async || {
            let begun = Instant::now();
            let (name, call) = Vec::from(calls(&installation, &grpc, &user)).swap_remove(number);
            give_up(&pool, name, begun, call).await
        })
        .await;
    }

    // Callers that stay connected get a response, too: the request times out.
    let waiting = calls(&installation, &grpc, &user).map(|(name, call)| (name, tokio::spawn(call)));
    statements(&pool, true, "all calls").await;
    for (name, call) in waiting {
        assert!(call.await.expect("a response"), "{name}: the API responds that the service is unavailable");
    }
    statements(&pool, false, "all calls").await;
    locked.rollback().await.expect("unlocked");
    for (name, call) in calls(&installation, &grpc, &user) {
        assert!(!call.await, "{name}: the call succeeds");
    }

    // The reader of an export disconnects after the first bytes.
    assert_eq!(installation.run("netagg", &["partitions", "ensure"]).await.code, 0);
    sqlx::raw_sql(MANY_EVENTS).execute(&pool).await.expect("inserted");
    eventually(PATIENCE, "an export ends with its reader", async || {
        let path = "/api/v1/users/many/detail?from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z";
        let mut export = get(&installation, path, "application/x-ndjson").await;
        assert_eq!(export.status(), 200);
        let begun = Instant::now();
        let locked = lock(&pool).await;
        let read = async move { while let Ok(Some(_)) = export.chunk().await {} };
        let given_up = give_up(&pool, "an export that has begun", begun, read).await;
        locked.rollback().await.expect("unlocked");
        given_up
    })
    .await;
    pool.close().await;
}
