//! TLS with certificates and keys from files, which are read again when they change.

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

/// An encrypted connection.
pub(crate) type Encrypted = BufReader<TlsStream<TcpStream>>;

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the files are checked for changes.
const INTERVAL: Duration = Duration::from_secs(5);

/// The log warns if the certificate expires within this time. Automatic renewal replaces a certificate long before.
const EXPIRY_WARNING: TimeDelta = TimeDelta::days(7);

/// The files with certificates and keys, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct TlsFiles {
    /// The server's certificate, followed by the intermediate certificates up to a root that clients trust.
    pub certificates: PathBuf,
    /// The private key of the server's certificate, without a passphrase.
    pub key: PathBuf,
    /// The certificates of the authorities that sign client certificates, if clients need a certificate (mutual TLS).
    pub client_authorities: Option<PathBuf>,
}

/// Why TLS cannot use the files.
#[derive(Debug, Error)]
#[allow(clippy::exhaustive_enums)]
pub enum TlsError {
    /// The file with the server's certificates cannot be used.
    #[error("{path} has no usable server certificates: {source}")]
    Certificates {
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        source: BoxError,
    },
    /// The file with the private key cannot be used.
    #[error("{path} has no private key of the server certificate: {source}")]
    Key {
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        source: BoxError,
    },
    /// The file with the authorities of clients cannot be used.
    #[error("{path} has no usable certificates to verify clients: {source}")]
    ClientAuthorities {
        /// The path of the file.
        path: PathBuf,
        /// The cause.
        source: BoxError,
    },
}

/// The TLS configuration of both servers. New connections use the files that [`refresh_loop`](Self::refresh_loop) read last.
#[derive(Clone, Debug)]
pub struct Tls {
    files: Arc<TlsFiles>,
    served: Arc<RwLock<Served>>,
}

#[derive(Clone, Debug)]
struct Served {
    http: Arc<ServerConfig>,
    grpc: Arc<ServerConfig>,
    /// When the server's certificate expires, in seconds of Unix time.
    expires: i64,
}

impl Tls {
    /// Reads `files` and returns TLS 1.2 and 1.3 with their contents.
    ///
    /// # Errors
    /// If a file cannot be read or has invalid contents, or if the key does not belong to the certificate.
    pub fn read(files: TlsFiles) -> Result<Self, TlsError> {
        let served = Contents::read(&files)?.serve(&files)?;
        Ok(Self { files: Arc::new(files), served: Arc::new(RwLock::new(served)) })
    }

    /// Reads the files again whenever they change, until `shutdown`. If their contents cannot be used, the previous contents
    /// stay in use: a certificate and its key are rarely replaced at the same instant.
    pub async fn refresh_loop(&self, shutdown: &CancellationToken) {
        self.warn_of_readable_key();
        let mut tried = None;
        while !shutdown.is_cancelled() {
            self.reload(&mut tried).await;
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Reads the files and uses their contents, unless these contents were `tried` before.
    async fn reload(&self, tried: &mut Option<Contents>) {
        let files = Arc::clone(&self.files);
        let Ok(found) = tokio::task::spawn_blocking(move || Contents::read(&files)).await else { return };
        if found.as_ref().ok() == tried.as_ref() {
            return;
        }
        let served = found.and_then(|contents| tried.insert(contents).serve(&self.files));
        match served {
            Ok(served) => self.replace(served),
            Err(error) => tracing::warn!(%error, "cannot use the new TLS files; the previous files stay in use"),
        }
    }

    /// The TLS acceptor for the next connection of `transport`.
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
        if served.expires < (Utc::now() + EXPIRY_WARNING).timestamp() {
            tracing::warn!(expires, "the API's certificate expires soon, or has expired");
        } else {
            tracing::info!(expires, "using this certificate");
        }
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = served;
    }

    #[cfg(unix)]
    fn warn_of_readable_key(&self) {
        use std::os::unix::fs::PermissionsExt;
        let is_open = fs::metadata(&self.files.key).is_ok_and(|key| key.permissions().mode() & 0o007 != 0);
        if is_open {
            tracing::warn!(path = %self.files.key.display(), "every user of this machine can read the private key");
        }
    }

    #[cfg(not(unix))]
    fn warn_of_readable_key(&self) {}
}

/// Performs the TLS handshake on `stream` and waits for the first bytes of the client. Returns `None` if the client takes too
/// long for either, or the handshake fails.
pub(crate) async fn encrypted(acceptor: TlsAcceptor, stream: TcpStream, idle_timeout: Duration) -> Option<Encrypted> {
    // A separate task, because the computations of a handshake take a while and would delay other connections.
    let handshake = async move {
        let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.ok()?.ok()?;
        Some(BufReader::new(stream))
    };
    let Ok(Some(mut stream)) = AbortOnDropHandle::new(tokio::spawn(handshake)).await else {
        metrics::counter!("netagg_tls_handshake_failures_total").increment(1);
        return None;
    };
    let first = tokio::time::timeout(idle_timeout, stream.fill_buf()).await;
    matches!(first, Ok(Ok([_, ..]))).then_some(stream)
}

/// The contents of the files.
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
        let with_protocol = |protocol: &[u8]| {
            let mut config = config.clone();
            config.alpn_protocols = vec![protocol.to_vec()];
            Arc::new(config)
        };
        Ok(Served { http: with_protocol(b"http/1.1"), grpc: with_protocol(b"h2"), expires })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BoxError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>()?;
    if certificates.is_empty() { Err("no CERTIFICATE in PEM".into()) } else { Ok(certificates) }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, BoxError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        let text = String::from_utf8_lossy(pem);
        if text.contains("ENCRYPTED") {
            "the key has a passphrase; only a key without a passphrase is accepted".into()
        } else {
            error.into()
        }
    })
}

/// When the server's own certificate expires, in seconds of Unix time.
fn expires(chain: &[CertificateDer<'_>]) -> Result<i64, BoxError> {
    let own = chain.first().ok_or("no certificate")?;
    let (_, certificate) = X509Certificate::from_der(own).map_err(|error| error.to_string())?;
    // Without this check the error would name the key as the cause: rustls reads the certificate again when it compares the
    // key with it.
    if certificate.version() != X509Version::V3 {
        let version = certificate.version().0 + 1;
        return Err(format!(
            "the first certificate has X.509 version {version}, which names no host; only version 3 is accepted"
        )
        .into());
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

    /// A folder with a certificate and its key, and the paths of these files.
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
    fn an_error_names_the_file_and_the_cause() {
        let (folder, files) = folder();
        let read = |files: &TlsFiles| Tls::read(files.clone()).map(drop).map_err(|error| error.to_string());
        assert_eq!(read(&files), Ok(()));

        // `openssl x509 -req` makes such a certificate if it gets no file of extensions.
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
            ("key.pem", encrypted, "the key has a passphrase"),
            ("key.pem", "", "no items found"),
            ("cert.pem", "nonsense", "no CERTIFICATE in PEM"),
            ("cert.pem", of_version_1, "X.509 version 1"),
            ("cert.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cert.pem"),
        ] {
            let path = folder.path().join(file);
            let good = fs::read(&path).expect("read");
            fs::write(&path, contents).expect("written");
            let error = read(&files).expect_err("rejected");
            assert!(error.contains(file) && error.contains(why), "{error}");
            fs::write(&path, good).expect("written");
        }
        for (files, name) in [
            (TlsFiles { certificates: missing.clone(), ..files.clone() }, "missing"),
            (TlsFiles { key: missing.clone(), ..files.clone() }, "missing"),
            (TlsFiles { client_authorities: Some(missing.clone()), ..files.clone() }, "missing"),
            (TlsFiles { client_authorities: Some(files.key.clone()), ..files.clone() }, "to verify clients"),
        ] {
            assert!(read(&files).is_err_and(|error| error.contains(name)), "{files:?}");
        }
    }

    #[tokio::test]
    async fn new_files_are_served_and_broken_ones_are_not() {
        let (_folder, files) = folder();
        let tls = Tls::read(files.clone()).expect("valid files");
        let served = || Arc::as_ptr(&tls.served.read().expect("not poisoned").http);
        let mut tried = None;
        tls.reload(&mut tried).await;
        let first = served();
        tls.reload(&mut tried).await;
        assert_eq!(served(), first, "the files have not changed");

        let second = certificate(&["two"]);
        fs::write(&files.certificates, &second.0).expect("written");
        tls.reload(&mut tried).await;
        assert_eq!(served(), first, "the key does not belong to the new certificate yet");
        fs::remove_file(&files.key).expect("removed");
        tls.reload(&mut tried).await;
        assert_eq!(served(), first, "the key file is missing");
        put(&files, &second);
        tls.reload(&mut tried).await;
        assert_ne!(served(), first);
    }

    #[test]
    fn the_expiry_is_the_expiry_of_the_servers_own_certificate() {
        let mut params = CertificateParams::new(["one".to_owned()]).expect("parameters");
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let own = params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
        let (other, _) = certificate(&["two"]);
        let chain = certificates(format!("{}{other}", own.pem()).as_bytes()).expect("two");
        assert_eq!(expires(&chain).expect("a time"), 1_927_843_200);
    }
}
