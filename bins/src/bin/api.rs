//! Serves the events and totals of a user, and the totals of all users, over gRPC and HTTP.

use std::process::ExitCode;
use std::sync::Arc;

use netagg::config::{self, Answers, ApiAddresses};
use netagg::ops::OpsConfig;
use netagg::process::{LogDefaults, Shutdown, Variables};
use netagg::protection::ProtectionConfig;
use netagg::reserved_descriptors;
use netagg::runtime::Runtime;
use netagg::{Failure, program};
use netagg_api::Server;
use netagg_core::OtelPropagator;
use netagg_core::usage::UsageService;
use netagg_pg::{PgAggregateStore, PgConfig, PgEventStore, Postgres};
use netagg_redis::{RedisCache, RedisConfig};
use tikv_jemallocator::Jemalloc;

/// The allocator that can take heap profiles.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

struct Config {
    postgres: PgConfig,
    read_postgres: PgConfig,
    redis: RedisConfig,
    addresses: ApiAddresses,
    has_page: bool,
    protection: ProtectionConfig,
    answers: Answers,
    ops: OpsConfig,
}

fn configure(variables: &mut Variables) -> Config {
    let addresses = ApiAddresses::read(variables);
    let has_page = config::has_page(variables);
    let protection = ProtectionConfig::read(variables, &addresses);
    let answers = Answers::read(variables);
    // With these settings the API reads nothing from the database that the services write to.
    let is_unused =
        variables.has("DATABASE_READ_URL") && answers.cursor_secret.is_some() && !protection.has_keys_in_database();
    let postgres = variables.unless(is_unused, |variables| config::postgres(variables, 2, "netagg-api"));
    Config {
        ops: config::api_ops(variables, &addresses, 6062),
        addresses,
        has_page,
        protection,
        read_postgres: config::read_postgres(variables, &postgres),
        postgres,
        redis: config::redis(variables),
        answers,
    }
}

async fn answer(config: Config, shutdown: Shutdown) -> Result<ExitCode, Failure> {
    let limits = reserved_descriptors::api_limits(&config.read_postgres, &config.postgres, &config.redis)?;
    let (http, grpc) = config.addresses.listen().await?;
    let runtime = Runtime::start(config.ops, shutdown).await?;
    netagg_api::register_metrics();
    let reads = Postgres::new(config.read_postgres);
    runtime.watch_postgres(&reads, None);
    let cache = Arc::new(RedisCache::new(config.redis)?);
    runtime.watch_redis(&cache).await;
    let protection = config.protection.protection(config.postgres.clone());
    runtime.watch_protection(&protection);
    let configured = config.answers.cursor_secret.clone();
    let secret = runtime.cursor_secret(configured, config.postgres, &http, &protection, config.has_page).await?;
    let Some(cursor_secret) = secret else {
        return Ok(ExitCode::SUCCESS);
    };
    let usage = UsageService::new(
        Arc::new(PgEventStore::new(reads.clone())),
        Arc::new(PgAggregateStore::new(reads)),
        config.answers.usage_config(cursor_secret),
    )
    .with_cache(cache);
    let server = Server::new(Arc::new(usage))
        .with_protection(protection.clone())
        .with_limits(limits.clone())
        .with_trace_propagator(Arc::new(OtelPropagator));
    let server = if config.has_page { server.with_overview_page() } else { server };
    let (addresses, connections) = (config.addresses, limits.max_connections);
    tracing::info!(http = %addresses.http, grpc = %addresses.grpc, connections, "answering");
    let stop = runtime.stop_token();
    let ((), answered, ()) = tokio::join!(
        server.clone().serve_http(http, stop.clone()),
        server.serve_grpc(grpc, stop.clone()),
        protection.refresh_loop(&stop),
    );
    answered?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    const ABOUT: &str = "Serves the events and totals of a user, and the totals of all users, over gRPC and HTTP.";
    program("api", ABOUT, LogDefaults::SERVICE, configure).run(answer)
}
