//! What no caller of the API waits for any more ends on the database server, too.

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

/// Events of one user, 60 MB of them: more than the sockets on the way to a client can hold.
const MANY_EVENTS: &str = "INSERT INTO events_raw (source_id, event_id, user_id, type, started_at, bytes_up, bytes_down, meta) \
     SELECT 'test', gen_random_uuid(), 'many', 'DATA', date_trunc('month', now()) + make_interval(secs => second), \
     0, 0, jsonb_build_object('a', repeat('x', 1000000)) FROM generate_series(1, 60) AS second";

/// As long as this is open, nobody reads an event.
async fn lock(pool: &PgPool) -> Transaction<'static, Postgres> {
    let mut lock = pool.begin().await.expect("a transaction");
    sqlx::raw_sql("LOCK TABLE events_raw").execute(&mut *lock).await.expect("locked");
    lock
}

/// Waits until statements of the API wait for the lock, or none does.
async fn statements(pool: &PgPool, wait: bool, what: &str) {
    eventually(PATIENCE, &format!("{what}: statements wait: {wait}"), async || {
        let waiting: i64 = sqlx::query_scalar(WAITING).fetch_one(pool).await.map_err(|error| error.to_string())?;
        if (waiting > 0) == wait { Ok(()) } else { Err(waiting.to_string()) }
    })
    .await;
}

/// Gives up a call as soon as it waits for the lock; fails unless its statements end before the call's own time is over,
/// which would end them anyway.
async fn give_up(pool: &PgPool, what: &str, begun: Instant, call: impl Future + Send + 'static) -> Result<(), String> {
    let call = tokio::spawn(call.map(drop));
    statements(pool, true, what).await;
    call.abort();
    statements(pool, false, what).await;
    let limit = ApiLimits::default().request_timeout;
    if begun.elapsed() < limit { Ok(()) } else { Err(format!("{what}: it took its {limit:?}")) }
}

/// A question about a user's events, which tells whether it was answered that it may be asked again later.
type Call = (&'static str, BoxFuture<'static, bool>);

/// Ways to ask what only `events_raw` can tell. The user is nobody else's: the cache is shared.
fn calls(installation: &Installation, grpc: &UsageServiceClient<Channel>, user: &str) -> [Call; 5] {
    let http = |path: &str, accept: &'static str| {
        let asked = get(installation, &format!("/api/v1/users/{user}{path}"), accept);
        asked.map(|answer| answer.status() == 503).boxed()
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
        ("totals over gRPC", own.map(|answer| answer.is_err_and(is_unavailable)).boxed()),
        // Its connection stays open: the call alone is given up.
        ("a stream", async move { shared.stream_user_detail(detail).await.is_err_and(is_unavailable) }.boxed()),
    ]
}

/// Asks with a client of its own: dropped with the call, it closes its connection.
fn get(
    installation: &Installation,
    path: &str,
    accept: &'static str,
) -> impl Future<Output = reqwest::Response> + Send + use<> {
    let url = format!("http://127.0.0.1:{}{path}", installation.variable("API_HTTP_PORT"));
    async move { reqwest::Client::new().get(url).header("accept", accept).send().await.expect("an answer") }
}

fn is_unavailable(status: Status) -> bool {
    status.code() == Code::Unavailable
}

fn grpc_address(installation: &Installation) -> String {
    format!("http://127.0.0.1:{}", installation.variable("API_GRPC_PORT"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_waits_for_ends_on_the_server() {
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
            let (what, call) = Vec::from(calls(&installation, &grpc, &user)).swap_remove(number);
            give_up(&pool, what, begun, call).await
        })
        .await;
    }

    // Nobody goes away, and nobody is let wait for ever.
    let waiting = calls(&installation, &grpc, &user).map(|(what, call)| (what, tokio::spawn(call)));
    statements(&pool, true, "all of them").await;
    for (what, call) in waiting {
        assert!(call.await.expect("an answer"), "{what}: it is told to come again");
    }
    statements(&pool, false, "all of them").await;
    locked.rollback().await.expect("unlocked");
    for (what, call) in calls(&installation, &grpc, &user) {
        assert!(!call.await, "{what}: it is answered");
    }

    // An export that has begun.
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
