//! Authentication and encryption of the API: API keys, tokens of an issuer, and TLS.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use netagg_testkit::eventually;
use rcgen::KeyPair;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::installation::{Installation, PATIENCE};

/// A range that no other test requests. The tests share a cache, and some tests count its hits.
const PATH: &str = "/api/v1/aggregates?granularity=DAY&from=2020-01-01&to=2020-01-02";

async fn status(installation: &Installation, key: &str) -> Result<u16, String> {
    let url = format!("http://127.0.0.1:{}{PATH}", installation.variable("API_HTTP_PORT"));
    let response = reqwest::Client::new().get(url).bearer_auth(key).send().await.map_err(|error| error.to_string())?;
    Ok(response.status().as_u16())
}

async fn until_status(installation: &Installation, key: &str, expected: u16) {
    eventually(PATIENCE, &format!("the API responds with {expected}"), async || {
        match status(installation, key).await? {
            status if status == expected => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_created_listed_and_revoked_while_the_api_runs() {
    let mut installation = Installation::new().await;
    installation.set("API_AUTH", "keys");
    let folder = tempfile::tempdir().expect("a folder");
    for file in [None, Some(folder.path().join("keys"))] {
        if let Some(file) = &file {
            installation.set("API_KEYS_FILE", file.to_str().expect("UTF-8"));
        }
        let arguments = ["keys", "create", "--name", "billing", "--scope", "aggregates:read", "--expires-in", "90d"];
        let made = installation.run("netagg", &arguments).await;
        assert_eq!(made.code, 0, "{}", made.stderr);
        let key = made.stdout.trim().to_owned();
        let (id, secret) = key.strip_prefix("netagg_").and_then(|rest| rest.split_once('_')).expect("a key");

        let mut api = installation.start("api");
        installation.readiness("api", 200).await;
        until_status(&installation, &key, 200).await;
        assert_eq!(status(&installation, "netagg_0123456789abcdef_0").await, Ok(401));

        let listed = installation.run("netagg", &["keys", "list"]).await;
        let json = installation.run("netagg", &["keys", "list", "--json"]).await;
        assert!(listed.stdout.contains(id) && listed.stdout.contains("billing"), "{}", listed.stdout);
        let line: serde_json::Value = serde_json::from_str(json.stdout.trim()).expect("one key");
        assert_eq!(
            (&line["id"], &line["state"], &line["scopes"]),
            (&id.into(), &"good".into(), &serde_json::json!(["aggregates:read"]))
        );

        assert_eq!(installation.run("netagg", &["keys", "revoke", id]).await.code, 0);
        until_status(&installation, &key, 401).await;
        assert_eq!(installation.run("netagg", &["keys", "revoke", "0123456789abcdef"]).await.code, 1);
        api.terminate();
        assert_eq!(api.code(PATIENCE).await, 0);
        for text in [listed.stdout, json.stdout, made.stderr, api.stderr()] {
            assert!(!text.contains(secret), "a text contains the secret: {text}");
        }
        if let Some(file) = &file {
            assert!(!std::fs::read_to_string(file).expect("the keys").contains(secret));
        } else {
            let pool = installation.pool().await;
            let stored: String = sqlx::query_scalar("SELECT string_agg(k::text, '') FROM api_key k")
                .fetch_one(&pool)
                .await
                .expect("keys");
            assert!(stored.contains(id) && !stored.contains(secret), "{stored}");
            pool.close().await;
        }
    }
}

/// A signing key of a token issuer.
struct IssuerKey {
    id: &'static str,
    pair: KeyPair,
}

impl IssuerKey {
    fn new(id: &'static str) -> Self {
        Self { id, pair: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key") }
    }

    fn published(&self) -> serde_json::Value {
        let (x, y) = self.pair.public_key_raw()[1..].split_at(32);
        let [x, y] = [x, y].map(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id, "x": x, "y": y}]})
    }

    fn token(&self) -> String {
        let header = Header { kid: Some(self.id.to_owned()), ..Header::new(Algorithm::ES256) };
        let claims = json!({
            "iss": "https://issuer.example", "aud": "netagg", "sub": "billing", "scope": "aggregates:read",
            "exp": chrono::Utc::now().timestamp() + 600,
        });
        // The provider applies only to the following calls of this process.
        let _ = jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER.install_default();
        encode(&header, &claims, &EncodingKey::from_ec_der(self.pair.serialized_der())).expect("signed")
    }
}

/// Starts a token issuer that publishes the contents of the file over TLS. Returns its port.
async fn publish(file: &Path, identity: &rcgen::CertifiedKey<KeyPair>) -> u16 {
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![identity.cert.der().clone()],
            PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der()).into(),
        )
        .expect("a certificate");
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await);
    let (listener, file) = (listener.expect("a port"), file.to_owned());
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let keys = tokio::fs::read_to_string(&file).await.expect("the keys");
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", keys.len());
            let _ = stream.write_all(format!("{head}{keys}").as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_issuer_are_accepted_while_it_publishes_their_key() {
    let mut installation = Installation::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (file, certificate) = (folder.path().join("jwks.json"), folder.path().join("cert.pem"));
    installation.set("API_AUTH", "keys,jwt");
    installation.set("API_JWT_ISSUER", "https://issuer.example");
    let refused = installation.run("api", &[]).await;
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(
        refused.stderr.contains("API_JWT_JWKS") && refused.stderr.contains("API_JWT_AUDIENCE"),
        "{}",
        refused.stderr
    );

    installation.set("API_JWT_AUDIENCE", "netagg");
    let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&certificate, identity.cert.pem()).expect("written");
    let port = publish(&file, &identity).await;
    for keys in [file.to_str().expect("UTF-8").to_owned(), format!("https://localhost:{port}/jwks")] {
        let (old, new) = (IssuerKey::new("old"), IssuerKey::new("new"));
        installation.set("API_JWT_JWKS", &keys);
        // The certificates that the machine trusts.
        installation.set("SSL_CERT_FILE", certificate.to_str().expect("UTF-8"));
        std::fs::write(&file, old.published().to_string()).expect("written");
        let mut api = installation.start("api");
        installation.readiness("api", 200).await;
        until_status(&installation, &old.token(), 200).await;
        assert_eq!(status(&installation, &new.token()).await, Ok(401));
        let made = installation.run("netagg", &["keys", "create", "--name", "k", "--scope", "aggregates:read"]).await;
        until_status(&installation, made.stdout.trim(), 200).await;

        std::fs::write(&file, new.published().to_string()).expect("written");
        until_status(&installation, &new.token(), 200).await;
        assert_eq!(status(&installation, &old.token()).await, Ok(401), "the key of the token is no longer published");
        api.terminate();
        assert_eq!(api.code(PATIENCE).await, 0);
    }

    std::fs::remove_file(&file).expect("removed");
    installation.set("API_JWT_JWKS", file.to_str().expect("UTF-8"));
    let _api = installation.start("api");
    eventually(PATIENCE, "/readyz of the API gives the reason why it accepts no credentials", async || {
        let (status, body) = installation.ops("api", "/readyz").await?;
        if status == 503 && body.contains("No such file") { Ok(()) } else { Err(body) }
    })
    .await;
    assert_eq!(status(&installation, "a.b.c").await, Ok(503));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_on_another_address_than_loopback_needs_an_explicit_api_auth() {
    let mut installation = Installation::new().await;
    installation.set("API_BIND", "0.0.0.0");
    for (program, arguments) in [("api", &[][..]), ("netagg", &["demo", "--serve", "--events", "10"])] {
        let ended = installation.run(program, arguments).await;
        assert_eq!(ended.code, 2, "{program}: {}", ended.stderr);
        for shown in ["API_AUTH", "none", "keys", "API_BIND=0.0.0.0"] {
            assert!(ended.stderr.contains(shown), "{shown} in {}", ended.stderr);
        }
    }
    installation.set("API_AUTH", "none");
    let _api = installation.start("api");
    installation.readiness("api", 200).await;
    until_status(&installation, "", 200).await;
}

/// The status line of the API over TLS, for a client that trusts only this certificate.
async fn encrypted_status(installation: &Installation, trusted: &rcgen::Certificate) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).expect("a root");
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = format!("127.0.0.1:{}", installation.variable("API_HTTP_PORT"));
    let stream = TcpStream::connect(address).await.expect("connected");
    let name = "localhost".try_into().expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("trusted");
    let request = format!("GET {PATH} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.expect("a response");
    String::from_utf8_lossy(&status).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_with_a_certificate_accepts_only_tls() {
    let mut installation = Installation::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(&certificate, own.cert.pem()).expect("written");
    std::fs::write(&key, "").expect("written");
    installation.set("API_TLS_CERT_FILE", certificate.to_str().expect("UTF-8"));
    installation.set("API_TLS_KEY_FILE", key.to_str().expect("UTF-8"));
    let refused = installation.run("api", &[]).await;
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    assert!(refused.stderr.contains("API_TLS_KEY_FILE"), "{}", refused.stderr);

    std::fs::write(&key, own.signing_key.serialize_pem()).expect("written");
    let api = installation.start("api");
    installation.readiness("api", 200).await;
    eventually(PATIENCE, "a metric shows the expiry of the certificate", async || {
        let (_, metrics) = installation.ops("api", "/metrics").await?;
        let expiry = "netagg_tls_certificate_expiry_timestamp_seconds ";
        if metrics.lines().any(|line| line.starts_with(expiry)) { Ok(()) } else { Err(metrics) }
    })
    .await;
    assert_eq!(encrypted_status(&installation, &own.cert).await, "HTTP/1.1 200");
    assert!(status(&installation, "").await.is_err(), "the API does not respond in plain text");
    assert!(!api.stderr().contains("PRIVATE KEY"), "{}", api.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_exit_code_2_and_name_the_argument() {
    let installation = Installation::on("postgres://no_role@127.0.0.1:1/none", "127.0.0.1:1", "redis://127.0.0.1:1");
    for (argument, value, accepted) in [
        ("--scope", "detail:write", "detail:read and aggregates:read"),
        ("--rate-limit", "100", "such as 100/s"),
        ("--expires-in", "90", "an integer and a unit"),
        ("--expires-in", "0s", "a longer time"),
        ("--expires-in", "0d", "a longer time"),
        ("--user-id", "", "1 to 64 characters"),
        ("--name", "", "1 to 100 characters"),
    ] {
        let mut arguments = vec!["keys", "create", argument, value];
        if argument != "--name" {
            arguments.extend(["--name", "n"]);
        }
        if argument != "--scope" {
            arguments.extend(["--scope", "detail:read"]);
        }
        let ended = installation.run("netagg", &arguments).await;
        assert_eq!(ended.code, 2, "{argument}: {}", ended.stderr);
        assert!(ended.stderr.contains(argument) && ended.stderr.contains(accepted), "{}", ended.stderr);
    }
    let own =
        ["keys", "create", "--name", "n", "--scope", "detail:read", "--user-id", "7", "--scope", "aggregates:read"];
    let ended = installation.run("netagg", &own).await;
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("--user-id") && ended.stderr.contains("aggregates:read"), "{}", ended.stderr);
    let ended = installation.run("netagg", &["keys", "revoke", "netagg_0123456789abcdef_s3cret"]).await;
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("ID") && !ended.stderr.contains("s3cret"), "{}", ended.stderr);
}
