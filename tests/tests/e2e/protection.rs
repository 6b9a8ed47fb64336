//! Who gets into the API, as its operator says.

use std::sync::Arc;

use netagg_tests::eventually;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::installation::{Installation, PATIENCE};

/// A range of its own: the cache is shared, and other tests count what is found in it.
const PATH: &str = "/api/v1/aggregates?granularity=DAY&from=2020-01-01&to=2020-01-02";

async fn status(installation: &Installation, key: &str) -> Result<u16, String> {
    let url = format!("http://127.0.0.1:{}{PATH}", installation.variable("API_HTTP_PORT"));
    let answer = reqwest::Client::new().get(url).bearer_auth(key).send().await.map_err(|error| error.to_string())?;
    Ok(answer.status().as_u16())
}

async fn becomes(installation: &Installation, key: &str, expected: u16) {
    eventually(PATIENCE, &format!("the API answers with {expected}"), async || {
        match status(installation, key).await? {
            status if status == expected => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_made_listed_and_revoked_while_the_api_runs() {
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
        becomes(&installation, &key, 200).await;
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
        becomes(&installation, &key, 401).await;
        assert_eq!(installation.run("netagg", &["keys", "revoke", "0123456789abcdef"]).await.code, 1);
        api.terminate();
        assert_eq!(api.code(PATIENCE).await, 0);
        for text in [listed.stdout, json.stdout, made.stderr, api.stderr()] {
            assert!(!text.contains(secret), "a secret shows: {text}");
        }
        if let Some(file) = &file {
            assert!(!std::fs::read_to_string(file).expect("the keys").contains(secret));
        } else {
            let pool = installation.pool().await;
            let kept: String = sqlx::query_scalar("SELECT string_agg(k::text, '') FROM api_key k")
                .fetch_one(&pool)
                .await
                .expect("keys");
            assert!(kept.contains(id) && !kept.contains(secret), "{kept}");
            pool.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_for_other_machines_says_who_may_ask() {
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
    becomes(&installation, "", 200).await;
}

/// How the API answers over TLS to a client that trusts this certificate alone.
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
    stream.read_exact(&mut status).await.expect("an answer");
    String::from_utf8_lossy(&status).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_with_a_certificate_answers_over_tls_alone() {
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
    eventually(PATIENCE, "the end of the certificate shows", async || {
        let (_, metrics) = installation.ops("api", "/metrics").await?;
        let expiry = "netagg_tls_certificate_expiry_timestamp_seconds ";
        if metrics.lines().any(|line| line.starts_with(expiry)) { Ok(()) } else { Err(metrics) }
    })
    .await;
    assert_eq!(encrypted_status(&installation, &own.cert).await, "HTTP/1.1 200");
    assert!(status(&installation, "").await.is_err(), "nothing is answered in plain text");
    assert!(!api.stderr().contains("PRIVATE KEY"), "{}", api.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_are_exit_code_2_and_name_the_argument() {
    let installation = Installation::on("postgres://nobody@127.0.0.1:1/none", "127.0.0.1:1", "redis://127.0.0.1:1");
    for (argument, value, accepted) in [
        ("--scope", "detail:write", "detail:read and aggregates:read"),
        ("--rate-limit", "100", "such as 100/s"),
        ("--expires-in", "90", "an integer and a unit"),
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
    let ended = installation.run("netagg", &["keys", "revoke", "netagg_0123456789abcdef_s3cret"]).await;
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("ID") && !ended.stderr.contains("s3cret"), "{}", ended.stderr);
}
