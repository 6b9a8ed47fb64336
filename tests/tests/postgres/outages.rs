//! Servers that are unavailable, crash or freeze, and calls that are cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{FutureExt, poll};
use netagg_api::auth::ApiKeys;
use netagg_core::ports::{AggregateStore, EventStore};
use netagg_core::{Error, EventLimits, Timestamp, causes};
use netagg_pg::{AuditOptions, PgAddress, PgAggregateStore, PgApiKeys, PgEventStore, Postgres, SslMode};
use netagg_testkit::{eventually, postgres};
use sqlx::{Connection, PgConnection};
use tokio::net::TcpListener;

use super::{Fresh, at, config, connect, contributions, events};

fn is_unavailable(error: &Error) -> bool {
    matches!(error, Error::Unavailable { dependency: "postgres", .. })
}

#[tokio::test]
async fn the_error_about_an_unavailable_server_names_its_address() {
    let address = PgAddress::new("127.0.0.1", 1, "me", "s3cret", "events", SslMode::Disable);
    let config = config(address, |config| config.acquire_timeout = Duration::from_millis(100));
    let postgres = Postgres::new(config);
    for error in [postgres.ping().await.unwrap_err(), postgres.check_schema().await.unwrap_err()] {
        assert!(is_unavailable(&error) && error.to_string().contains("127.0.0.1:1/events"), "{error}");
        assert!(!format!("{error:?} {postgres:?}").contains("s3cret"));
    }
    assert!(is_unavailable(&postgres.migrations().up().await.unwrap_err()));
}

#[tokio::test]
async fn a_missing_database_is_an_error_about_the_setup() {
    let fresh = Fresh::empty().await;
    let postgres = connect(&format!("{}-not", fresh.database.url()));
    let error = postgres.ping().await.unwrap_err();
    assert!(matches!(error, Error::NotSetUp { .. }), "{error:?}");
}

/// Writers retry after every retryable error. Over two crashes of the server, each event is stored and counted once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_of_the_server_loses_no_event_and_doubles_none() {
    let server = postgres::Server::start().await;
    let database = connect(&server.url());
    database.migrations().up().await.unwrap();
    let store = Arc::new(PgEventStore::new(database.clone()));
    let totals = Arc::new(PgAggregateStore::new(database.clone()));
    let (written, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let writers: Vec<_> = (0..4_u128)
        .map(|writer| {
            let (store, totals) = (store.clone(), totals.clone());
            let (written, failed) = (written.clone(), failed.clone());
            tokio::spawn(async move {
                for round in 0..100_u128 {
                    let first = (writer * 100 + round) * 20;
                    let batch: Vec<_> = (first..first + 20).map(|id| at(id, "2025-10-20T12:00:00Z")).collect();
                    let (batch, counted) = (events(batch.clone()), contributions(batch));
                    let retry = async |error: Error| {
                        assert!(error.is_retryable(), "{error:?}");
                        failed.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    };
                    while let Err(error) = store.store(&batch).await {
                        retry(error).await;
                    }
                    while let Err(error) = totals.add(&counted).await {
                        retry(error).await;
                    }
                    written.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for crash in 1..=2 {
        eventually(Duration::from_secs(60), "some batches", async || match written.load(Ordering::Relaxed) {
            enough if enough >= 60 * crash => Ok(()),
            written => Err(format!("{written} batches")),
        })
        .await;
        server.crash().await;
        server.start_again().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(failed.load(Ordering::Relaxed) > 0, "no call failed because of the crash");
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    let counts: (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM events_raw), (SELECT sum(count_events)::bigint FROM agg_day),
                (SELECT count(*) FROM event_identity JOIN agg_identity USING (key, content, day))",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!(counts, (8_000, 8_000, 8_000));
}

#[tokio::test]
async fn calls_to_a_frozen_server_time_out() {
    let server = postgres::Server::start().await;
    let config = config(server.url().parse().unwrap(), |config| {
        config.max_connections = 2;
        config.acquire_timeout = Duration::from_secs(1);
        config.call_timeout = Duration::from_millis(1_500);
    });
    let database = Postgres::new(config);
    database.migrations().up().await.unwrap();
    let store = PgEventStore::new(database.clone());
    store.store(&events([at(1, "2025-10-20T12:00:00Z")])).await.unwrap();
    server.pause().await;
    // There are more calls than connections, so a call that timed out must release its connection.
    for id in 2..6 {
        let error = store.store(&events([at(id, "2025-10-20T12:00:00Z")])).await.unwrap_err();
        assert!(is_unavailable(&error), "{error:?}");
    }
    server.resume().await;
    eventually(Duration::from_secs(120), "the server works again", async || {
        store.store(&events([at(2, "2025-10-20T12:00:00Z")])).await.map_err(|error| error.to_string())
    })
    .await;
}

/// Calls are dropped at any point. Each call has stored its whole batch or nothing, and leaves no open transaction to the next
/// call.
#[tokio::test]
async fn a_cancelled_call_stores_its_whole_batch_or_nothing() {
    let fresh = Fresh::migrated().await;
    let store = PgEventStore::new(fresh.postgres.clone());
    store.store(&events([at(0, "2025-10-20T12:00:00Z")])).await.unwrap();
    let mut finished = 0;
    for polls in 0..200_u128 {
        let batch = events((0..50).map(|id| at(1 + polls * 50 + id, "2025-10-20T12:00:00Z")));
        let mut call = store.store(&batch);
        for _ in 0..polls % 40 {
            if poll!(&mut call).is_ready() {
                finished += 1;
                call = futures::future::pending().boxed();
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
        // Other sessions see the next event at once, so its transaction is committed and not part of an open transaction.
        let next = at(1_000_000 + polls, "2025-10-20T12:00:00Z");
        assert_eq!(store.store(&events([next])).await.unwrap().new, 1);
        let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM event_identity")
            .fetch_one(&mut fresh.connection().await)
            .await
            .unwrap();
        assert!(seen as u128 > polls);
    }
    // The server rolls back the transaction of a closed connection when it notices the end of the connection.
    eventually(Duration::from_secs(60), "no open transaction", async || {
        let open: i64 = fresh
            .value(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in tr%'",
            )
            .await;
        if open == 0 { Ok(()) } else { Err(format!("{open} open")) }
    })
    .await;
    assert_eq!(
        fresh.value::<i64>("SELECT count(*) FROM events_raw").await,
        fresh.value::<i64>("SELECT count(*) FROM event_identity").await
    );
    assert!(finished < 200, "every call was finished before it could be cancelled");
}

/// Many calls share few connections, and all calls succeed.
#[tokio::test(flavor = "multi_thread")]
async fn more_calls_than_connections_take_turns() {
    let fresh = Fresh::migrated().await;
    let config = config(fresh.database.url().parse().unwrap(), |config| config.max_connections = 2);
    let store = Arc::new(PgEventStore::new(Postgres::new(config)));
    let calls = (0..64_u128).map(|call| {
        let store = store.clone();
        tokio::spawn(async move {
            let day = 1 + call % 28;
            store
                .store(&events([at(call, &format!("2025-{:02}-{day:02}T00:00:00Z", 1 + call % 12))]))
                .await
                .unwrap()
                .new
        })
    });
    assert_eq!(join_all(calls).await.into_iter().map(Result::unwrap).sum::<u64>(), 64);
}

/// A handle for a port on which no server listens.
async fn refusing(acquire_timeout: Duration) -> Postgres {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let address = PgAddress::new("127.0.0.1", port, "me", "s3cret", "events", SslMode::Disable);
    Postgres::new(config(address, |config| {
        config.acquire_timeout = acquire_timeout;
        config.max_connections = 2;
    }))
}

#[tokio::test]
async fn a_refused_connection_is_reported_as_refused_and_at_once() {
    let postgres = refusing(Duration::from_secs(60)).await;
    let begun = Instant::now();
    // There are more calls than connections. The calls that wait for a connection also get the error.
    let errors = join_all((0..8).map(|_| postgres.ping())).await;
    let by_commands = [
        postgres.migrations().up().await.unwrap_err(),
        postgres.migrations().status().await.unwrap_err(),
        postgres.audit().run(&AuditOptions::default(), &|_| {}).await.unwrap_err(),
    ];
    for error in errors.into_iter().map(Result::unwrap_err).chain(by_commands) {
        assert!(is_unavailable(&error), "{error:?}");
        let causes = causes(&error);
        assert_eq!(causes.len(), 1, "{causes:?}");
        let text = &causes[0];
        assert!(text.contains("Connection refused") && text.contains("/events"), "{text}");
        assert_eq!(text.matches("refused").count(), 1, "{text}");
    }
    // The pool alone would wait 60 s for a connection, for each of these errors.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn errors_have_the_message_of_the_server_without_its_source_location() {
    let fresh = Fresh::empty().await;
    let url = fresh.database.url().to_owned();
    let wrong_password = url.replace("app_password", "wrong");
    let error = connect(&format!("{url}-not")).ping().await.unwrap_err();
    let missing = causes(&error).join("\n");
    assert!(missing.contains("does not exist") && missing.contains("3D000"), "{missing}");
    let mut texts = vec![missing];
    if wrong_password != url
        && let Err(error) = connect(&wrong_password).ping().await
    {
        texts.push(causes(&error).join("\n"));
    }
    for text in texts {
        for noise in [" at line ", "error returned from database", "s3cret"] {
            assert!(!text.contains(noise), "{text}");
        }
        assert_eq!(text.lines().count(), 1, "no reason is repeated: {text}");
    }
}

#[tokio::test]
async fn without_the_schema_every_error_says_that_the_schema_is_missing() {
    let fresh = Fresh::empty().await;
    let postgres = connect(fresh.database.url());
    let limits = EventLimits::default();
    let now: Timestamp = "2025-10-31T12:00:00Z".parse().unwrap();
    let store = PgEventStore::new(postgres.clone());
    let errors = [
        postgres.check_schema().await.unwrap_err(),
        postgres.settings().recorded_event_limits().await.unwrap_err(),
        postgres.settings().set_event_limits(limits).await.unwrap_err(),
        postgres.settings().cursor_secret().await.map(drop).unwrap_err(),
        postgres.partitions().list().await.unwrap_err(),
        postgres.partitions().ensure_ahead(now, 1).await.unwrap_err(),
        postgres.retention().dropped_through().await.unwrap_err(),
        postgres.audit().run(&AuditOptions::default(), &|_| {}).await.unwrap_err(),
        PgApiKeys::new(postgres.clone()).list().await.unwrap_err(),
        store.store(&events([at(1, "2025-10-20T12:00:00Z")])).await.unwrap_err(),
        EventStore::complete_through(&store).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::NotSetUp { .. }), "{error:?}");
        let causes = causes(&error);
        assert_eq!(causes.len(), 1, "{causes:?}");
        assert!(
            causes[0].contains("the schema is missing") && causes[0].contains("apply the migrations"),
            "{causes:?}"
        );
        assert!(!causes[0].contains("relation"), "{causes:?}");
    }
}
