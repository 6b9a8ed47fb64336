//! TLS from files that are read again when they change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use netagg_core::BoxError;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use crate::client::Transport;

/// A connection that is encrypted.
pub(crate) type Encrypted = BufReader<TlsStream<TcpStream>>;

/// How long a client may take to agree on how to encrypt.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// A certificate this near its end is worth a warning; certificates that renew themselves do so long before.
const NEAR_ITS_END: TimeDelta = TimeDelta::days(7);

/// Where certificates and keys are, all of them in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TlsFiles {
    /// The server's certificate, followed by those between it and a root that clients know.
    pub certificates: PathBuf,
    /// The private key of the first of them, without a passphrase.
    pub key: PathBuf,
    /// The certificates that clients' own must come from, if clients need one (mutual TLS).
    pub client_authorities: Option<PathBuf>,
}

/// Why files cannot be served from.
#[derive(Debug, Error)]
#[allow(clippy::exhaustive_enums)]
pub enum TlsError {
    /// Of the certificates.
    #[error("no certificates that can be served are in {path}: {source}")]
    Certificates {
        /// Where they should be.
        path: PathBuf,
        /// What is wrong.
        source: BoxError,
    },
    /// Of the key.
    #[error("no private key of that certificate is in {path}: {source}")]
    Key {
        /// Where it should be.
        path: PathBuf,
        /// What is wrong.
        source: BoxError,
    },
    /// Of the authorities of clients.
    #[error("no certificates to check clients by are in {path}: {source}")]
    ClientAuthorities {
        /// Where they should be.
        path: PathBuf,
        /// What is wrong.
        source: BoxError,
    },
}

/// The TLS of both servers. New connections get what [`refresh_loop`](Self::refresh_loop) has read last.
#[derive(Clone, Debug)]
pub struct Tls {
    files: Arc<TlsFiles>,
    served: Arc<RwLock<Served>>,
}

#[derive(Clone, Debug)]
struct Served {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    /// When the server's certificate ends, in seconds of Unix time.
    expires: i64,
}

impl Tls {
    /// TLS 1.2 and 1.3 with what is in `files` now.
    ///
    /// # Errors
    /// A file that cannot be read, or holds something else, or a key that isn't the certificate's.
    pub fn read(files: TlsFiles) -> Result<Self, TlsError> {
        let served = Contents::read(&files)?.serve(&files)?;
        Ok(Self { files: Arc::new(files), served: Arc::new(RwLock::new(served)) })
    }

    /// Reads the files again whenever they change, until `shutdown`. While what they hold cannot be served, what was
    /// read before goes on: a certificate and its key are seldom replaced in one moment.
    pub async fn refresh_loop(&self, shutdown: &CancellationToken) {
        self.warn_of_readable_key();
        let mut tried = None;
        while !shutdown.is_cancelled() {
            self.look(&mut tried).await;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Serves what is in the files, unless that was `tried` before.
    async fn look(&self, tried: &mut Option<Contents>) {
        let files = Arc::clone(&self.files);
        let Ok(found) = tokio::task::spawn_blocking(move || Contents::read(&files)).await else { return };
        if found.as_ref().ok() == tried.as_ref() {
            return;
        }
        let served = found.and_then(|contents| tried.insert(contents).serve(&self.files));
        match served {
            Ok(served) => self.replace(served),
            Err(error) => tracing::warn!(%error, "what was read before goes on being served"),
        }
    }

    /// How the next connection of `transport` is met.
    pub(crate) fn acceptor(&self, transport: Transport) -> TlsAcceptor {
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        let config = match transport {
            Transport::Http => &served.http,
            Transport::Grpc => &served.grpc,
        };
        Arc::clone(config).into()
    }

    fn replace(&self, served: Served) {
        metrics::gauge!("netagg_tls_certificate_expiry_timestamp_seconds").set(served.expires as f64);
        let expires = DateTime::from_timestamp(served.expires, 0).map(|expires| expires.to_rfc3339());
        if served.expires < (Utc::now() + NEAR_ITS_END).timestamp() {
            tracing::warn!(expires, "the API's certificate is near its end, or past it");
        } else {
            tracing::info!(expires, "serving this certificate");
        }
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = served;
    }

    #[cfg(unix)]
    fn warn_of_readable_key(&self) {
        use std::os::unix::fs::PermissionsExt;
        let is_open = fs::metadata(&self.files.key).is_ok_and(|key| key.permissions().mode() & 0o007 != 0);
        if is_open {
            tracing::warn!(path = %self.files.key.display(), "everybody on this machine may read the private key");
        }
    }

    #[cfg(not(unix))]
    fn warn_of_readable_key(&self) {}
}

/// `stream` once its client has agreed on how to encrypt, and speaks.
pub(crate) async fn encrypted(acceptor: TlsAcceptor, stream: TcpStream, idle_timeout: Duration) -> Option<Encrypted> {
    // A task of its own: its arithmetic takes a while, and others are waiting.
    let handshake = async move {
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.ok()?.ok()?;
        Some(BufReader::new(stream))
    };
    let Ok(Some(mut stream)) = AbortOnDropHandle::new(tokio::spawn(handshake)).await else {
        metrics::counter!("netagg_tls_handshake_failures_total").increment(1);
        return None;
    };
    let begun = tokio::time::timeout(idle_timeout, stream.fill_buf()).await;
    matches!(begun, Ok(Ok([_, ..]))).then_some(stream)
}

/// What is in the files.
#[derive(PartialEq, Eq)]
struct Contents {
    certificates: Vec<u8>,
    key: Vec<u8>,
    client_authorities: Option<Vec<u8>>,
}

impl Contents {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let client_authorities = files.client_authorities.as_ref().map(fs::read).transpose();
        Ok(Self {
            certificates: fs::read(&files.certificates).map_err(|error| wrong_certificates(files, error))?,
            key: fs::read(&files.key).map_err(|error| wrong_key(files, error))?,
            client_authorities: client_authorities.map_err(|error| wrong_authorities(files, error))?,
        })
    }

    fn serve(&self, files: &TlsFiles) -> Result<Served, TlsError> {
        let chain = certificates(&self.certificates).map_err(|error| wrong_certificates(files, error))?;
        let expires = expires(&chain).map_err(|error| wrong_certificates(files, error))?;
        let key = private_key(&self.key).map_err(|error| wrong_key(files, error))?;
        let provider = Arc::new(ring::default_provider());
        let clients = match &self.client_authorities {
            Some(pem) => verifier(pem, &provider).map_err(|error| wrong_authorities(files, error))?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong_certificates(files, error))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|error| wrong_key(files, error))?;
        let speaking = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Ok(Served { http: speaking(b"http/1.1"), grpc: speaking(b"h2"), expires })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if certificates.is_empty() { Err("no CERTIFICATE in PEM".into()) } else { Ok(certificates) }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, BoxError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let text = String::from_utf8_lossy(pem);
        if text.contains("ENCRYPTED") { "it has a passphrase; one without is accepted".into() } else { error.into() }
    })
}

/// When the server's own certificate ends.
fn expires(chain: &[CertificateDer<'_>]) -> Result<i64, BoxError> {
    let own = chain.first().ok_or("no certificate")?;
    let (_, certificate) = X509Certificate::from_der(own).map_err(|error| error.to_string())?;
    // Else the key would be blamed: it is checked against the certificate, which is read again for that.
    if certificate.version() != X509Version::V3 {
        let version = certificate.version().0 + 1;
        return Err(
            format!("the first is of X.509 version {version}, which names no host; version 3 is accepted").into()
        );
    }
    ParsedCertificate::try_from(own)?;
    Ok(certificate.validity().not_after.timestamp())
}

fn verifier(pem: &[u8], provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, BoxError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate)?;
    }
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build()?)
}

fn wrong_certificates(files: &TlsFiles, error: impl Into<BoxError>) -> TlsError {
    TlsError::Certificates { path: files.certificates.clone(), source: error.into() }
}

fn wrong_key(files: &TlsFiles, error: impl Into<BoxError>) -> TlsError {
    TlsError::Key { path: files.key.clone(), source: error.into() }
}

fn wrong_authorities(files: &TlsFiles, error: impl Into<BoxError>) -> TlsError {
    let path = files.client_authorities.as_deref().map(Path::to_owned).unwrap_or_default();
    TlsError::ClientAuthorities { path, source: error.into() }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CertifiedKey, KeyPair, generate_simple_self_signed};
    use tempfile::TempDir;

    use super::*;

    fn certificate(names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).expect("a certificate");
        (cert.pem(), signing_key.serialize_pem())
    }

    /// A folder with a certificate, and the files of it.
    fn folder() -> (TempDir, TlsFiles) {
        let folder = tempfile::tempdir().expect("a folder");
        let files = TlsFiles {
            certificates: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
            client_authorities: None,
        };
        put(&files, &certificate(&["one"]));
        (folder, files)
    }

    fn put(files: &TlsFiles, (certificates, key): &(String, String)) {
        fs::write(&files.certificates, certificates).expect("written");
        fs::write(&files.key, key).expect("written");
    }

    #[test]
    fn what_cannot_be_served_says_which_file_and_why() {
        let (folder, files) = folder();
        let read = |files: &TlsFiles| Tls::read(files.clone()).map(drop).map_err(|error| error.to_string());
        assert_eq!(read(&files), Ok(()));

        // As `openssl x509 -req` makes them without a file of extensions.
        let of_version_1 = "-----BEGIN CERTIFICATE-----
MIIBJDCBywIUf1ikRzarHiG0f5QBVPgvHe/g0YAwCgYIKoZIzj0EAwIwFDESMBAG
A1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyODA1MjEyNFoYDzIxMjYxMTA0MDUyMTI0
WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AARoCn+yvBJfZd4awpytPrIqc+dZ4gGOK7fc5FrTkG9SCX9cyDA5q+pdXwjrH7hm
mFZYvjgAmQJTVsL5EiqO2bJbMAoGCCqGSM49BAMCA0gAMEUCIBzxaCJZm6aj2YeF
85ELz9S0pb1BKBdGDcqv/+WfLq9eAiEA9Kbc+awz02GQ52uit/q3+INlxtnutJuE
wQG8e+1zv58=
-----END CERTIFICATE-----
";
        let missing = folder.path().join("missing");
        let (_, other_key) = certificate(&["two"]);
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (file, contents, why) in [
            ("key.pem", other_key.as_str(), "keys may not be consistent"),
            ("key.pem", encrypted, "it has a passphrase"),
            ("key.pem", "", "no items found"),
            ("cert.pem", "nonsense", "no CERTIFICATE in PEM"),
            ("cert.pem", of_version_1, "X.509 version 1"),
            ("cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cert.pem"),
        ] {
            let path = folder.path().join(file);
            let good = fs::read(&path).expect("read");
            fs::write(&path, contents).expect("written");
            let error = read(&files).expect_err("refused");
            assert!(error.contains(file) && error.contains(why), "{error}");
            fs::write(&path, good).expect("written");
        }
        for (files, name) in [
            (TlsFiles { certificates: missing.clone(), ..files.clone() }, "missing"),
            (TlsFiles { key: missing.clone(), ..files.clone() }, "missing"),
            (TlsFiles { client_authorities: Some(missing.clone()), ..files.clone() }, "missing"),
            (TlsFiles { client_authorities: Some(files.key.clone()), ..files.clone() }, "to check clients by"),
        ] {
            assert!(read(&files).is_err_and(|error| error.contains(name)), "{files:?}");
        }
    }

    #[tokio::test]
    async fn new_files_are_served_and_broken_ones_are_not() {
        let (_folder, files) = folder();
        let tls = Tls::read(files.clone()).expect("good");
        let served = || Arc::as_ptr(&tls.served.read().expect("not poisoned").http);
        let mut tried = None;
        tls.look(&mut tried).await;
        let first = served();
        tls.look(&mut tried).await;
        assert_eq!(served(), first, "nothing has changed");

        let second = certificate(&["two"]);
        fs::write(&files.certificates, &second.0).expect("written");
        tls.look(&mut tried).await;
        assert_eq!(served(), first, "the key is still the other one's");
        fs::remove_file(&files.key).expect("removed");
        tls.look(&mut tried).await;
        assert_eq!(served(), first, "the key is away");
        put(&files, &second);
        tls.look(&mut tried).await;
        assert_ne!(served(), first);
    }

    #[test]
    fn the_end_is_that_of_the_servers_own_certificate() {
        let mut params = CertificateParams::new(["one".to_owned()]).expect("parameters");
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let own = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        let (other, _) = certificate(&["two"]);
        let chain = certificates(format!("{}{other}", own.pem()).as_bytes()).expect("two");
        assert_eq!(expires(&chain).expect("a time"), 1_927_843_200);
    }
}
