//! Answers users' detail and everybody's totals over gRPC and HTTP.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use netagg::config::{self, Answers, ApiAddresses};
use netagg::descriptors::{self, Need};
use netagg::ops::{self, OpsConfig};
use netagg::protection::ProtectionConfig;
use netagg::service::Service;
use netagg::{Failure, LogDefaults, Program, Shutdown, Variables};
use netagg_api::{ApiLimits, Protection, Server, serve_unready};
use netagg_core::RetryPolicy;
use netagg_core::usage::UsageService;
use netagg_pg::{PgAggregateStore, PgConfig, PgEventStore, Postgres};
use netagg_redis::{RedisCache, RedisConfig};
use tikv_jemallocator::Jemalloc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Takes heap profiles.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// How long a start takes when everything is there: callers of this time wait for their answer.
const USUAL_START: Duration = Duration::from_secs(1);

struct Config {
    postgres: PgConfig,
    read_postgres: PgConfig,
    redis: RedisConfig,
    addresses: ApiAddresses,
    protection: ProtectionConfig,
    answers: Answers,
    ops: OpsConfig,
}

fn configure(variables: &mut Variables) -> Config {
    let addresses = ApiAddresses::read(variables);
    let protection = ProtectionConfig::read(variables, &addresses);
    let answers = Answers::read(variables);
    // Then nothing is left that would be read from the database of the others.
    let is_unused =
        variables.has("DATABASE_READ_URL") && answers.cursor_secret.is_some() && !protection.has_keys_in_database();
    let postgres = variables.unless(is_unused, |variables| config::postgres(variables, 2, "netagg-api"));
    Config {
        ops: config::api_ops(variables, &addresses, 6062),
        addresses,
        protection,
        read_postgres: config::read_postgres(variables, &postgres),
        postgres,
        redis: config::redis(variables),
        answers,
    }
}

/// The limits of both servers: they get the descriptors that the API does not need for itself.
fn limits(config: &Config) -> Result<ApiLimits, Failure> {
    // The keys and the cursors' secret have a pool each.
    let postgres = Need::postgres(config.read_postgres.max_connections + 2 * config.postgres.max_connections);
    let redis = Need::redis(config.redis.connections);
    descriptors::api_limits(&[descriptors::OWN, ops::DESCRIPTORS, postgres, redis])
}

async fn answer(config: Config, shutdown: Shutdown) -> Result<ExitCode, Failure> {
    let limits = limits(&config)?;
    let (http, grpc) = config.addresses.listen().await?;
    let service = Service::start(config.ops, shutdown).await?;
    netagg_api::register_metrics();
    let reads = Postgres::new(config.read_postgres);
    service.watch_postgres(&reads, None);
    let cache = Arc::new(RedisCache::new(config.redis)?);
    service.watch_redis(&cache).await;
    let protection = config.protection.protection(config.postgres.clone());
    service.watch_protection(&protection);
    let cursor_secret = match config.answers.cursor_secret.clone() {
        Some(secret) => secret,
        None => {
            let settings = Postgres::new(config.postgres).settings();
            let waiting = service.stop_token().child_token();
            let unready = answer_unready(&http, &protection, &waiting);
            let secret = async {
                let (policy, stop) = (RetryPolicy::default(), service.stop_token());
                let secret = policy.retry(&stop, async || settings.cursor_secret().await).await;
                waiting.cancel();
                secret
            };
            let (secret, unready) = tokio::join!(secret, unready);
            unready?;
            let Some(secret) = secret? else { return Ok(ExitCode::SUCCESS) };
            secret
        }
    };
    let usage = UsageService::new(
        Arc::new(PgEventStore::new(reads.clone())),
        Arc::new(PgAggregateStore::new(reads)),
        config.answers.usage_config(cursor_secret),
    )
    .with_cache(cache);
    let server = Server::new(Arc::new(usage)).with_protection(protection.clone()).with_limits(limits.clone());
    let (addresses, connections) = (config.addresses, limits.max_connections);
    tracing::info!(http = %addresses.http, grpc = %addresses.grpc, connections, "answering");
    let stop = service.stop_token();
    let ((), answered, ()) = tokio::join!(
        server.clone().serve_http(http, stop.clone()),
        server.serve_grpc(grpc, stop.clone()),
        protection.refresh_loop(&stop),
    );
    answered?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

/// Answers on the port of `http` that the API is alive and not ready, until `waiting` ends: a load balancer is not to take it
/// for dead.
async fn answer_unready(
    http: &TcpListener,
    protection: &Protection,
    waiting: &CancellationToken,
) -> Result<(), std::io::Error> {
    let soon = waiting.run_until_cancelled(tokio::time::sleep(USUAL_START)).await;
    if soon.is_none() {
        return Ok(());
    }
    // The same socket: no connection is refused when the API takes over.
    let socket = http.as_fd().try_clone_to_owned()?;
    let listener = TcpListener::from_std(socket.into())?;
    serve_unready(listener, protection.clone(), ApiLimits::default(), waiting.clone()).await;
    Ok(())
}

fn main() -> ExitCode {
    Program {
        name: "api",
        about: "Answers users' detail and everybody's totals over gRPC and HTTP.",
        configure,
        log: LogDefaults::SERVICE,
    }
    .run(answer)
}
