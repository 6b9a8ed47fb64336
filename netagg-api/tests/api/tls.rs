//! Both servers over TLS: which connections they accept.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use netagg_api::proto::GetGlobalAggRequest;
use netagg_api::proto::usage_service_client::UsageServiceClient;
use netagg_api::{Protection, Tls, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Endpoint;
use tower::service_fn;

use crate::http_client::get;
use crate::servers::{SOON, Servers};

const AGGREGATES: &str = "/api/v1/aggregates?granularity=DAY";

/// An authority that signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority"))
    }

    /// A certificate and its key, in PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("parameters");
        (params.signed_by(&key, &self.0).expect("signed").pem(), key.serialize_pem())
    }
}

/// Servers with a certificate of `authority`, from files.
struct Encrypted {
    servers: Servers,
    authority: Authority,
    folder: TempDir,
    _refresh_loop: DropGuard,
}

impl Encrypted {
    async fn start(clients: Option<&Authority>) -> Self {
        let (authority, folder) = (Authority::new(), tempfile::tempdir().expect("a folder"));
        let path = |name| folder.path().join(name);
        put(folder.path(), &authority.sign("localhost"));
        if let Some(clients) = clients {
            std::fs::write(path("clients.pem"), clients.0.pem()).expect("written");
        }
        let files = TlsFiles {
            certificates: path("cert.pem"),
            key: path("key.pem"),
            client_authorities: clients.map(|_| path("clients.pem")),
        };
        let protection = Protection::default().with_tls(Tls::read(files).expect("valid files"));
        let stop_refresh = CancellationToken::new();
        tokio::spawn({
            let (protection, stop_refresh) = (protection.clone(), stop_refresh.clone());
            async move { protection.refresh_loop(&stop_refresh).await }
        });
        let servers = Servers::start_protected(protection).await;
        Self { servers, authority, folder, _refresh_loop: stop_refresh.drop_guard() }
    }

    /// A client that trusts the servers' authority, and sends the certificate `own`.
    fn client(&self, own: Option<&(String, String)>, protocol: &str) -> TlsConnector {
        connector(&self.authority, own, protocol)
    }

    async fn http(&self, own: Option<&(String, String)>) -> std::io::Result<TlsStream<TcpStream>> {
        connect(&self.client(own, "http/1.1"), self.servers.http).await
    }

    /// Requests the totals of all users over gRPC, and returns the number of rows.
    async fn totals(&self, own: Option<&(String, String)>) -> Result<usize, String> {
        let (connector, address) = (self.client(own, "h2"), self.servers.grpc);
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector(service_fn(move |_| {
                let connector = connector.clone();
                async move { connect(&connector, address).await.map(TokioIo::new) }
            }))
            .await
            .map_err(|error| format!("{error:?}"))?;
        let request = GetGlobalAggRequest { granularity: "DAY".to_owned(), ..GetGlobalAggRequest::default() };
        let response = UsageServiceClient::new(channel).get_global_agg(request).await;
        response.map(|response| response.into_inner().data.len()).map_err(|status| status.to_string())
    }
}

fn put(folder: &Path, (certificate, key): &(String, String)) {
    std::fs::write(folder.join("cert.pem"), certificate).expect("written");
    std::fs::write(folder.join("key.pem"), key).expect("written");
}

fn connector(authority: &Authority, own: Option<&(String, String)>, protocol: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(vec![certificate], key).expect("the certificate and the key match")
        }
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Arc::new(config).into()
}

async fn connect(connector: &TlsConnector, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    connector.connect(ServerName::try_from("localhost").expect("a name"), stream).await
}

/// Sends a request over `stream` and returns the response. Returns an error if the server closes the connection instead.
async fn ask(stream: &mut TlsStream<TcpStream>) -> std::io::Result<String> {
    let request = format!("GET {AGGREGATES} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    while !response.ends_with(b"}") {
        if stream.read_buf(&mut response).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8(response).expect("UTF-8"))
}

#[tokio::test]
async fn both_servers_accept_only_tls() {
    let encrypted = Encrypted::start(None).await;
    let response = ask(&mut encrypted.http(None).await.expect("connected")).await.expect("a response");
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(response.contains("strict-transport-security: max-age=31536000"), "{response}");
    assert_eq!(encrypted.totals(None).await, Ok(0));

    let stranger = connector(&Authority::new(), None, "http/1.1");
    assert!(
        connect(&stranger, encrypted.servers.http).await.is_err(),
        "the client does not trust the authority of the server"
    );
    for address in [encrypted.servers.http, encrypted.servers.grpc] {
        let mut plain = TcpStream::connect(address).await.expect("connected");
        plain.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("sent");
        let mut response = Vec::new();
        let _ = tokio::time::timeout(SOON, plain.read_to_end(&mut response)).await.expect("the connection is closed");
        assert!(!response.starts_with(b"HTTP"), "{response:?}");
    }
    encrypted.servers.stopped().await;
}

#[tokio::test]
async fn responses_without_tls_have_no_strict_transport_security() {
    let servers = Servers::start().await;
    assert_eq!(get(servers.http, AGGREGATES).await.header("strict-transport-security"), None);
    servers.stopped().await;
}

#[tokio::test]
async fn clients_without_a_valid_certificate_are_rejected() {
    let clients = Authority::new();
    let encrypted = Encrypted::start(Some(&clients)).await;
    let valid = clients.sign("client");
    let response = ask(&mut encrypted.http(Some(&valid)).await.expect("connected")).await.expect("a response");
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert_eq!(encrypted.totals(Some(&valid)).await, Ok(0));

    let of_another = Authority::new().sign("client");
    for own in [None, Some(&of_another), Some(&encrypted.authority.sign("localhost"))] {
        // In TLS 1.3 the client sees the rejection only when it reads.
        let rejected = match encrypted.http(own).await {
            Ok(mut stream) => ask(&mut stream).await.is_err(),
            Err(_) => true,
        };
        assert!(rejected, "{own:?}");
        assert!(encrypted.totals(own).await.is_err(), "{own:?}");
    }
    encrypted.servers.stopped().await;
}

#[tokio::test]
async fn silent_clients_do_not_delay_others() {
    let encrypted = Encrypted::start(None).await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(encrypted.servers.http).await.expect("connected"));
    }
    let mut half = TcpStream::connect(encrypted.servers.http).await.expect("connected");
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).await.expect("the start of a handshake");
    let response = ask(&mut encrypted.http(None).await.expect("connected")).await.expect("a response");
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    // The shutdown does not wait for the silent clients.
    encrypted.servers.stopped().await;
    drop((silent, half));
}

#[tokio::test]
async fn a_new_certificate_is_served_to_new_connections() {
    let encrypted = Encrypted::start(None).await;
    let mut open = encrypted.http(None).await.expect("connected");
    let before = open.get_ref().1.peer_certificates().expect("a certificate").to_vec();
    ask(&mut open).await.expect("a response");

    put(encrypted.folder.path(), &encrypted.authority.sign("localhost"));
    let replaced = async {
        loop {
            let new = encrypted.http(None).await.expect("connected");
            if new.get_ref().1.peer_certificates() != Some(&before[..]) {
                return new;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut new = tokio::time::timeout(SOON, replaced).await.expect("the new certificate is used");
    for stream in [&mut open, &mut new] {
        assert!(ask(stream).await.expect("a response").starts_with("HTTP/1.1 200"), "the open connection still works");
    }
    drop((open, new));
    encrypted.servers.stopped().await;
}
