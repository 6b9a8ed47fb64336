//! A database that rejects writes, sessions that are cut, and a network that stalls. The services wait, report the reason, and
//! stay exact.

use netagg_testkit::{eventually, kafka, postgres, redis};
use sqlx::{AssertSqlSafe, PgPool};

use super::installation::{Installation, PATIENCE};
use crate::support::proxy::Proxy;

/// Makes every write to a ledger fail with the SQLSTATE `code` of the table `refusal`, `times` times.
const REFUSAL: &str = "
    CREATE TABLE refusal (code text, times bigint);
    CREATE SEQUENCE refused;
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE asked refusal;
    BEGIN
        SELECT * INTO asked FROM refusal;
        IF FOUND AND nextval('refused') <= asked.times THEN
            RAISE EXCEPTION 'refused on purpose' USING ERRCODE = asked.code;
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON event_identity FOR EACH STATEMENT EXECUTE FUNCTION refuse();
    CREATE TRIGGER refuse BEFORE INSERT ON agg_identity FOR EACH STATEMENT EXECUTE FUNCTION refuse();";

async fn execute(pool: &PgPool, statements: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(statements.into())).execute(pool).await.expect("executed");
}

/// Ends every session of the services in this database. Other tests use other databases on the same server.
async fn cut_sessions(pool: &PgPool) {
    execute(
        pool,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE application_name LIKE 'netagg-%' AND datname = current_database()",
    )
    .await;
}

/// Waits until a service is not ready because of the database, with a reason that contains `expected`.
async fn not_ready(installation: &Installation, service: &str, expected: &str) {
    eventually(PATIENCE, &format!("{service} is not ready: {expected}"), async || {
        let (status, body) = installation.ops(service, "/readyz").await?;
        let report: serde_json::Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        assert!(!body.contains("s3cret"), "the report contains the password: {body}");
        match report["dependencies"]["postgres"].as_str() {
            Some(reason) if status == 503 && reason.contains(expected) => Ok(()),
            _ => Err(body),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_wait_while_the_database_rejects_writes_for_any_reason() {
    let installation = Installation::new().await;
    let pool = installation.pool().await;
    execute(&pool, REFUSAL).await;
    let mut services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    let mut adversary = installation.adversary(7);

    // A full disk, too many connections, no memory, an I/O error, a missing privilege: the services report it until it is over.
    for (code, reason) in [
        ("53100", "refused on purpose"),
        ("53300", "refused on purpose"),
        ("53200", "refused on purpose"),
        ("58030", "refused on purpose"),
        ("42501", "grant the role the missing privilege"),
    ] {
        execute(&pool, format!("INSERT INTO refusal VALUES ('{code}', 1000000000)")).await;
        adversary.publish(200).await;
        for name in ["ingestor", "aggregator"] {
            not_ready(&installation, name, reason).await;
        }
        execute(&pool, "TRUNCATE refusal").await;
        for name in ["ingestor", "aggregator"] {
            installation.readiness(name, 200).await;
        }
    }
    // A deadlock, a serialization failure, a lock timeout, a cancelled statement: the services retry at once.
    for code in ["40P01", "40001", "55P03", "57014"] {
        execute(&pool, format!("ALTER SEQUENCE refused RESTART; INSERT INTO refusal VALUES ('{code}', 5)")).await;
        adversary.publish(200).await;
        eventually(PATIENCE, "five writes were rejected", async || {
            let asked: i64 =
                sqlx::query_scalar("SELECT last_value FROM refused").fetch_one(&pool).await.expect("a number");
            if asked > 5 { Ok(()) } else { Err(asked.to_string()) }
        })
        .await;
        execute(&pool, "TRUNCATE refusal").await;
    }
    installation.withstood(&adversary).await;

    // A read-only database.
    let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&pool).await.expect("a name");
    let mut writer = pool.acquire().await.expect("a connection from before");
    let read_only = format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = on");
    sqlx::raw_sql(AssertSqlSafe(read_only)).execute(&mut *writer).await.expect("altered");
    cut_sessions(&pool).await;
    adversary.publish(200).await;
    for service in ["ingestor", "aggregator"] {
        not_ready(&installation, service, "read-only").await;
    }
    let writable = format!("ALTER DATABASE \"{name}\" RESET default_transaction_read_only");
    sqlx::raw_sql(AssertSqlSafe(writable)).execute(&mut *writer).await.expect("altered");
    cut_sessions(&pool).await;

    // Sessions are cut repeatedly in the middle of work.
    for _ in 0..20 {
        adversary.publish(60).await;
        cut_sessions(&pool).await;
    }
    installation.withstood(&adversary).await;
    for service in &mut services {
        assert!(service.is_running(), "{}", service.stderr());
        let lines = service.stderr().lines().count();
        assert!(lines < 300, "an outage is logged once, not repeatedly: {lines} lines");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_wait_while_the_network_stalls_or_breaks() {
    let direct = Installation::new().await;
    let database = url::Url::parse(direct.variable("DATABASE_URL")).expect("a URL");
    let cache = url::Url::parse(direct.variable("REDIS_URL")).expect("a URL");
    let to_postgres = Proxy::start(database.port().unwrap_or(5432)).await;
    let to_redis = Proxy::start(cache.port().unwrap_or(6379)).await;
    let through = |mut url: url::Url, proxy: &Proxy| {
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(proxy.port())).expect("a port");
        url.to_string()
    };
    let (database, cache) = (through(database, &to_postgres), through(cache, &to_redis));
    let mut installation = Installation::on(&database, "", &cache);
    installation.share(&direct);
    let mut services = ["ingestor", "aggregator"].map(|name| installation.start(name));
    let mut adversary = direct.adversary(9);
    adversary.publish(500).await;
    for name in ["ingestor", "aggregator"] {
        installation.readiness(name, 200).await;
    }
    to_redis.stall();
    for _ in 0..2 {
        to_postgres.stall();
        adversary.publish(500).await;
        for name in ["ingestor", "aggregator"] {
            installation.readiness(name, 503).await;
        }
        to_postgres.pass();
        for name in ["ingestor", "aggregator"] {
            installation.readiness(name, 200).await;
        }
    }
    to_redis.pass();
    for _ in 0..20 {
        adversary.publish(100).await;
        to_postgres.cut();
        to_redis.cut();
    }
    direct.withstood(&adversary).await;
    for service in &mut services {
        assert!(service.is_running(), "{}", service.stderr());
    }
}

const SERVICES: [&str; 3] = ["ingestor", "aggregator", "api"];

#[tokio::test(flavor = "multi_thread")]
async fn services_report_a_wrong_password_and_a_missing_privilege_and_wait() {
    let server = postgres::Server::start().await;
    let administrator = PgPool::connect(&server.url()).await.expect("connected");
    execute(&administrator, "CREATE ROLE netagg LOGIN PASSWORD 's3cret'; GRANT CREATE ON SCHEMA public TO netagg")
        .await;
    administrator.close().await;
    let mut url = url::Url::parse(&server.url()).expect("a URL");
    url.set_username("netagg").expect("a user");
    url.set_password(Some("s3cret")).expect("a password");
    let installation = Installation::on(url.as_str(), &kafka::brokers().await, &redis::url().await);
    installation.set_up().await;
    // This pool is connected before the password and the privileges change, so it keeps working.
    let pool = installation.pool().await;

    execute(&pool, "ALTER ROLE netagg PASSWORD 'another'").await;
    let mut services = SERVICES.map(|name| installation.start(name));
    for name in SERVICES {
        not_ready(&installation, name, "check user and password").await;
    }
    let refused = installation.run("netagg", &["partitions", "list"]).await;
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert!(refused.stderr.contains("check user and password"), "{}", refused.stderr);
    execute(&pool, "ALTER ROLE netagg PASSWORD 's3cret'").await;
    for name in SERVICES {
        installation.readiness(name, 200).await;
    }
    let mut adversary = installation.adversary(11);
    adversary.publish(200).await;

    execute(&pool, "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM netagg").await;
    adversary.publish(200).await;
    for name in SERVICES {
        not_ready(&installation, name, "grant the role the missing privilege").await;
    }
    execute(&pool, "GRANT ALL ON ALL TABLES IN SCHEMA public TO netagg").await;
    for name in SERVICES {
        installation.readiness(name, 200).await;
    }
    pool.close().await;
    installation.withstood(&adversary).await;
    for service in &mut services {
        assert!(service.is_running(), "{}", service.stderr());
    }
    for text in services.iter().map(|service| service.stderr()).chain([refused.stderr]) {
        assert!(!text.contains("s3cret"), "the text contains the password: {text}");
    }
}
