//! File descriptors: their limits, and idle clients.

use std::time::Duration;

use netagg_testkit::eventually;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;

use super::installation::{Installation, PATIENCE, ended};

/// Clients that connect and send nothing.
async fn idle(installation: &Installation, port: &str, count: usize) -> Vec<TcpStream> {
    let address = format!("127.0.0.1:{}", installation.variable(port));
    let mut clients = Vec::new();
    for _ in 0..count {
        // The system accepts a limited number of further connections that wait for the service.
        match tokio::time::timeout(Duration::from_secs(5), TcpStream::connect(&address)).await {
            Ok(Ok(client)) => clients.push(client),
            _ => break,
        }
    }
    clients
}

/// Raises the limit of this process, because it holds the other ends of the connections.
fn raise_own() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("raised");
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_clients_leave_descriptors_for_the_ops_port_and_the_pools() {
    raise_own();
    let installation = Installation::new().await;
    // `ulimit -n` also sets the hard limit, so the program cannot raise the limit.
    let mut api = installation.start_in_shell("api", "ulimit -n 1024", "");
    installation.readiness("api", 200).await;
    let http = idle(&installation, "API_HTTP_PORT", 1_010).await;
    let grpc = idle(&installation, "API_GRPC_PORT", 1_010).await;
    assert!(http.len() > 400 && grpc.len() > 400, "{} and {}", http.len(), grpc.len());
    for _ in 0..20 {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let (status, body) = installation.ops("api", path).await.expect("a response");
            assert_eq!(status, 200, "{path}: {body}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (_, metrics) = installation.ops("api", "/metrics").await.expect("a response");
    let open = metrics.lines().find_map(|line| line.strip_prefix("process_open_fds ")).expect("a figure");
    assert!(open.parse::<f64>().is_ok_and(|open| open < 1_000.0), "{open}");
    drop((http, grpc));
    eventually(PATIENCE, "clients that send a request get a response", async || {
        installation.api("/api/v1/aggregates?granularity=DAY").await.map(drop)
    })
    .await;
    api.terminate();
    assert_eq!(api.code(PATIENCE).await, 0);
    assert_eq!(api.stderr().matches("file descriptors").count(), 1, "{}", api.stderr());
    assert!(!api.stderr().contains("no connection can be accepted"), "{}", api.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_soft_limit_is_raised_to_the_hard_limit() {
    raise_own();
    let installation = Installation::new().await;
    let api = installation.start_in_shell("api", "ulimit -Sn 128; ulimit -Hn 4096", "");
    installation.readiness("api", 200).await;
    let clients = idle(&installation, "API_HTTP_PORT", 1_000).await;
    assert_eq!(clients.len(), 1_000);
    // Another connection is accepted and gets a response.
    let (status, _) = installation.api("/api/v1/aggregates?granularity=DAY").await.expect("a response");
    assert_eq!(status, 200);
    assert!(api.stderr().contains(r#""limit":4096"#), "{}", api.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_too_small_for_the_pools_is_a_wrong_configuration() {
    // The servers do not exist, because the programs end before they connect.
    let nowhere = Installation::on("postgres://no_role@127.0.0.1:1/none", "127.0.0.1:1", "redis://127.0.0.1:1");
    for few in ["ulimit -n 6", "ulimit -n 20"] {
        for program in ["ingestor", "generator"] {
            assert_eq!(ended(nowhere.start_in_shell(program, few, "")).await.code, 2, "{program}, {few}");
        }
    }
    for service in ["ingestor", "aggregator", "api"] {
        let ended = ended(nowhere.start_in_shell(service, "ulimit -n 100", "")).await;
        assert_eq!(ended.code, 2, "{service}: {}", ended.stderr);
        for shown in ["open files is 100", "PostgreSQL", "the ops port", "LimitNOFILE"] {
            assert!(ended.stderr.contains(shown), "{service}: {}", ended.stderr);
        }
    }
}
