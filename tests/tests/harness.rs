//! The test harness itself: its servers are available, separate from each other, and keep their data over a restart.

use std::sync::Arc;
use std::time::Duration;

use netagg_core::memory::MemoryDeadLetters;
use netagg_core::ports::EventPublisher;
use netagg_core::{Ingestor, OutgoingRecord};
use netagg_kafka::{KafkaConfig, KafkaPublisher, KafkaSource};
use netagg_pg::{PgConfig, PgEventStore, Postgres};
use netagg_testkit::{eventually, kafka, postgres, redis, unique};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_new_database_is_empty_and_available() {
    let database = postgres::database().await;
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let one: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&mut connection).await.unwrap();
    assert_eq!(one, 1);
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(tables, 0);
}

#[tokio::test]
async fn databases_are_separate() {
    let (one, other) = (postgres::database().await, postgres::database().await);
    let mut connection = PgConnection::connect(one.url()).await.unwrap();
    sqlx::query("CREATE TABLE mine ()").execute(&mut connection).await.unwrap();
    let mut connection = PgConnection::connect(other.url()).await.unwrap();
    assert!(sqlx::query("SELECT FROM mine").execute(&mut connection).await.is_err());
}

/// A test like in an application: the example in the README of `netagg-testkit`.
#[tokio::test]
async fn a_service_runs_on_a_fresh_database_and_a_fresh_topic() {
    let (database, topic) = (postgres::database().await, kafka::topic(4).await);
    assert_eq!(partitions(&admin(topic.brokers()), topic.name()).await, Ok(4));
    let postgres = Postgres::new(PgConfig::new(database.url().parse().unwrap()));
    postgres.migrations().up().await.unwrap();
    let config = KafkaConfig::new(topic.brokers());
    let mut source = KafkaSource::new(&config, &unique("group"), topic.name()).unwrap();
    let dead_letters = Arc::new(MemoryDeadLetters::new());
    let ingestor = Ingestor::new(Arc::new(PgEventStore::new(postgres)), dead_letters.clone());
    let (stats, stop) = (ingestor.stats(), CancellationToken::new());
    let service = tokio::spawn({
        let stop = stop.clone();
        async move { ingestor.run(&mut source, stop).await }
    });
    let publisher = KafkaPublisher::new(&config, topic.name()).unwrap();
    publisher.publish(vec![OutgoingRecord::new("not an event"), OutgoingRecord::new("{}")]).await.unwrap();
    let mut now = stats.snapshot();
    while now.new + now.invalid < 2 {
        now = stats.changed(&now).await;
    }
    assert_eq!(dead_letters.sent().len(), 2);
    stop.cancel();
    service.await.unwrap().unwrap();
}

#[tokio::test]
async fn redis_is_available() {
    assert_eq!(ping(&redis::url().await).await, Ok(()));
}

async fn ping(url: &str) -> Result<(), String> {
    let address = url.strip_prefix("redis://").expect("a plain address").trim_end_matches('/');
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(Duration::from_secs(1), asking).await {
        Ok(Ok(answer)) if &answer == b"+PONG\r\n" => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", brokers).set("reconnect.backoff.max.ms", "200").create().unwrap()
}

async fn partitions(admin: &AdminClient<DefaultClientContext>, topic: &str) -> Result<usize, String> {
    let metadata =
        admin.inner().fetch_metadata(Some(topic), Duration::from_secs(5)).map_err(|error| error.to_string())?;
    Ok(metadata.topics()[0].partitions().len())
}

async fn create(admin: &AdminClient<DefaultClientContext>, topic: &str) {
    let new = NewTopic::new(topic, 8, TopicReplication::Fixed(1));
    let created = admin.create_topics([&new], &AdminOptions::new()).await.unwrap();
    assert_eq!(created, [Ok(topic.to_owned())]);
}

#[tokio::test]
async fn kafka_creates_a_topic_only_on_request() {
    let admin = admin(&kafka::brokers().await);
    let (topic, other) = (unique("events"), unique("events"));
    create(&admin, &topic).await;
    eventually(Duration::from_secs(60), "the topic", async || match partitions(&admin, &topic).await? {
        8 => Ok(()),
        other => Err(format!("{other} partitions")),
    })
    .await;
    assert_eq!(partitions(&admin, &other).await, Ok(0));
}

#[tokio::test]
async fn an_owned_postgres_stops_crashes_and_keeps_its_data() {
    let server = postgres::Server::start().await;
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    let fsync: String = sqlx::query_scalar("SHOW fsync").fetch_one(&mut connection).await.unwrap();
    assert_eq!(fsync, "on");
    sqlx::raw_sql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)").execute(&mut connection).await.unwrap();

    server.stop().await;
    assert!(PgConnection::connect(&server.url()).await.is_err());
    server.start_again().await;
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    sqlx::query("INSERT INTO kept VALUES (2)").execute(&mut connection).await.unwrap();

    server.crash().await;
    assert!(PgConnection::connect(&server.url()).await.is_err());
    server.start_again().await;
    let mut connection = PgConnection::connect(&server.url()).await.unwrap();
    let kept: Vec<i32> = sqlx::query_scalar("SELECT n FROM kept ORDER BY n").fetch_all(&mut connection).await.unwrap();
    assert_eq!(kept, [1, 2]);

    server.pause().await;
    let mut asking = Box::pin(sqlx::query("SELECT 1").execute(&mut connection));
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut asking).await.is_err(), "the paused server responds");
    server.resume().await;
    asking.await.unwrap();
}

#[tokio::test]
async fn an_owned_redis_pauses_crashes_and_starts_again() {
    let server = redis::Server::start().await;
    server.pause().await;
    assert!(ping(&server.url()).await.is_err());
    server.resume().await;
    assert_eq!(ping(&server.url()).await, Ok(()));
    server.crash().await;
    assert!(ping(&server.url()).await.is_err());
    server.start_again().await;
    assert_eq!(ping(&server.url()).await, Ok(()));
}

#[tokio::test]
async fn an_owned_broker_stops_crashes_and_keeps_its_topics() {
    let broker = kafka::Broker::start().await;
    let topic = unique("events");
    create(&admin(&broker.brokers()), &topic).await;
    broker.stop().await;
    assert!(partitions(&admin(&broker.brokers()), &topic).await.is_err());
    broker.start_again().await;
    broker.crash().await;
    broker.start_again().await;
    let admin = admin(&broker.brokers());
    eventually(Duration::from_secs(60), "the topic", async || match partitions(&admin, &topic).await? {
        8 => Ok(()),
        other => Err(format!("{other} partitions")),
    })
    .await;
}

#[test]
#[should_panic(expected = "run `cargo build -p netagg`")]
fn a_program_that_was_not_built_is_named() {
    let _ = crate::support::programs::path("no-such-program");
}
