//! A server that is away, dies or freezes; calls that are cut short.

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
async fn an_absent_server_is_unavailable_and_the_error_says_where() {
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
async fn a_database_that_is_not_there_is_to_be_set_up() {
    let fresh = Fresh::empty().await;
    let postgres = connect(&format!("{}-not", fresh.database.url()));
    let error = postgres.ping().await.unwrap_err();
    assert!(matches!(error, Error::NotSetUp { .. }), "{error:?}");
}

/// Writers who try again whenever they are told that it may help, over a crash: everything once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crash_in_the_middle_loses_and_doubles_nothing() {
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
    assert!(failed.load(Ordering::Relaxed) > 0, "nobody noticed the crash");
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
async fn a_server_that_freezes_holds_no_call_for_ever() {
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
    // More calls than connections: those that are given up must not keep theirs.
    for id in 2..6 {
        let error = store.store(&events([at(id, "2025-10-20T12:00:00Z")])).await.unwrap_err();
        assert!(is_unavailable(&error), "{error:?}");
    }
    server.resume().await;
    eventually(Duration::from_secs(120), "the server is back", async || {
        store.store(&events([at(2, "2025-10-20T12:00:00Z")])).await.map_err(|error| error.to_string())
    })
    .await;
}

/// Calls dropped at any point: each stored its batch or didn't, and leaves no open transaction to the next one.
#[tokio::test]
async fn a_cancelled_call_leaves_nothing_half_done() {
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
        // Seen by others at once: it is in no transaction that somebody else left open.
        let next = at(1_000_000 + polls, "2025-10-20T12:00:00Z");
        assert_eq!(store.store(&events([next])).await.unwrap().new, 1);
        let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM event_identity")
            .fetch_one(&mut fresh.connection().await)
            .await
            .unwrap();
        assert!(seen as u128 > polls);
    }
    // Closed connections roll back as soon as the server notices.
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

/// Many calls share few connections, and each gets its turn.
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

/// What nobody listens at.
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
async fn a_refused_connection_is_told_as_refused_and_at_once() {
    let postgres = refusing(Duration::from_secs(60)).await;
    let begun = Instant::now();
    // More calls than connections: those that wait for one are told as well.
    let errors = join_all((0..8).map(|_| postgres.ping())).await;
    let by_commands = [
        postgres.migrations().up().await.unwrap_err(),
        postgres.migrations().status().await.unwrap_err(),
        postgres.audit().run(&AuditOptions::default(), &|_| {}).await.unwrap_err(),
    ];
    for error in errors.into_iter().map(Result::unwrap_err).chain(by_commands) {
        assert!(is_unavailable(&error), "{error:?}");
        let told = causes(&error);
        assert_eq!(told.len(), 1, "{told:?}");
        let text = &told[0];
        assert!(text.contains("Connection refused") && text.contains("/events"), "{text}");
        assert_eq!(text.matches("refused").count(), 1, "{text}");
    }
    // A tenth of the time that the pool alone would have taken once.
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_the_server_says_is_told_without_its_source() {
    let fresh = Fresh::empty().await;
    let url = fresh.database.url().to_owned();
    let wrong_password = url.replace("app_password", "wrong");
    let error = connect(&format!("{url}-not")).ping().await.unwrap_err();
    let missing = causes(&error).join("\n");
    assert!(missing.contains("does not exist") && missing.contains("3D000"), "{missing}");
    let mut told = vec![missing];
    if wrong_password != url
        && let Err(error) = connect(&wrong_password).ping().await
    {
        told.push(causes(&error).join("\n"));
    }
    for text in told {
        for noise in [" at line ", "error returned from database", "s3cret"] {
            assert!(!text.contains(noise), "{text}");
        }
        assert_eq!(text.lines().count(), 1, "nothing is told twice: {text}");
    }
}

#[tokio::test]
async fn without_the_schema_every_call_says_that_it_is_missing() {
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
        let told = causes(&error);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("the schema is missing") && told[0].contains("apply the migrations"), "{told:?}");
        assert!(!told[0].contains("relation"), "{told:?}");
    }
}
