//! TLS to every server that a program uses. The programs of this build contain two crypto providers, and neither is installed.
//! The same is possible in an application that embeds netagg.

use std::net::SocketAddr;
use std::sync::Arc;

use netagg_testkit::{eventually, postgres, redis};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::installation::{Installation, PATIENCE};

/// Starts a TLS proxy for a server without TLS. Returns its port.
async fn encrypted(config: Arc<ServerConfig>, server: SocketAddr, is_postgres: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = TlsAcceptor::from(config);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if is_postgres {
                    // The client requests TLS in plain text, with eight bytes.
                    stream.read_exact(&mut [0; 8]).await?;
                    stream.write_all(b"S").await?;
                }
                let mut stream = acceptor.accept(stream).await?;
                copy_bidirectional(&mut stream, &mut TcpStream::connect(server).await?).await
            });
        }
    });
    port
}

/// A new certificate in PEM, and the configuration of a server that uses it.
fn identity() -> (String, Arc<ServerConfig>) {
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![identity.cert.der().clone()],
            PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der()).into(),
        )
        .expect("a certificate");
    (identity.cert.pem(), Arc::new(config))
}

fn address_in(url: &str) -> SocketAddr {
    let (_, rest) = url.split_once("://").expect("a URL");
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let address = rest.split(['/', '?']).next().expect("an address");
    address.replace("localhost", "127.0.0.1").parse().unwrap_or_else(|error| panic!("{error}: {address}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dependency_can_be_reached_over_tls_with_two_crypto_providers() {
    let (pem, config) = identity();
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = folder.path().join("cert.pem");
    std::fs::write(&certificate, pem).expect("written");

    // The installation is set up without TLS. The test is about the connections of the programs.
    let mut installation = Installation::new().await;
    let plain = installation.variable("DATABASE_URL").to_owned();
    let database = encrypted(config.clone(), address_in(&plain), true).await;
    let server = redis::Server::start().await;
    let cache = encrypted(config, address_in(&server.url()), false).await;
    let (login, rest) = plain.split_once('@').expect("a login");
    let name = rest.split_once('/').expect("a name").1.split('?').next().expect("a name");
    installation.set("REDIS_URL", &format!("rediss://localhost:{cache}"));
    installation.set("SSL_CERT_FILE", certificate.to_str().expect("UTF-8"));
    for mode in ["require", "verify-ca", "verify-full"] {
        installation.set("DATABASE_URL", &format!("{login}@localhost:{database}/{name}?sslmode={mode}"));
        let status = installation.run("netagg", &["migrate", "status"]).await;
        assert_eq!(status.code, 0, "{mode}: {}", status.stderr);
        let mut api = installation.start("api");
        // On a busy machine, the first response of Redis may take longer than the 100 ms that the API waits.
        eventually(PATIENCE, "the report of the API has no notes", async || {
            let report = installation.readiness("api", 200).await;
            if report["notes"].is_null() { Ok(()) } else { Err(format!("{mode}: {report}")) }
        })
        .await;
        assert!(!api.stderr().contains("panicked"), "{}", api.stderr());
        api.terminate();
        api.code(PATIENCE).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_an_unknown_authority_is_rejected() {
    let (_, config) = identity();
    let database = postgres::database().await;
    let port = encrypted(config, address_in(database.url()), true).await;
    let mut installation = Installation::on(database.url(), "127.0.0.1:1", "redis://127.0.0.1:1");
    let (login, _) = database.url().split_once('@').expect("a login");
    for mode in ["verify-ca", "verify-full"] {
        installation.set("DATABASE_URL", &format!("{login}@localhost:{port}/events?sslmode={mode}"));
        let status = installation.run("netagg", &["migrate", "status"]).await;
        assert_eq!(status.code, 1, "{mode}: {}", status.stdout);
        assert!(status.stderr.contains("UnknownIssuer"), "{mode}: {}", status.stderr);
    }
}
