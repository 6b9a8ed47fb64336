//! JWK sets: the form in which issuers of tokens publish their keys.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::header::ACCEPT;
use axum::http::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use netagg_core::{BoxError, Error};
use rustls::crypto::ring;

/// The maximum size of a JWK set. No issuer needs more.
const MAX_BYTES: usize = 1024 * 1024;

/// The place where an issuer publishes its keys.
#[async_trait]
pub trait KeySet: fmt::Debug + Send + Sync {
    /// Reads the keys, as a JWK set in JSON.
    ///
    /// # Errors
    /// A retryable error while the set cannot be read.
    async fn read(&self) -> Result<String, Error>;
}

/// A JWK set in a file.
#[derive(Clone, Debug)]
pub struct KeySetFile {
    path: Arc<Path>,
}

impl KeySetFile {
    /// The JWK set in the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into().into() }
    }
}

#[async_trait]
impl KeySet for KeySetFile {
    async fn read(&self) -> Result<String, Error> {
        tokio::fs::read_to_string(&self.path)
            .await
            .map_err(|error| unavailable(format!("{}: {error}", self.path.display())))
    }
}

/// A JWK set at a URL.
#[derive(Clone, Debug)]
pub struct KeySetUrl {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

/// Why a URL cannot be used for a JWK set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKeySetUrl {
    /// The URL is not encrypted. An attacker on the network could replace the keys.
    #[error("https:// is accepted, and http:// on this machine only")]
    Unencrypted,
    /// The text is not a URL.
    #[error("a URL is accepted, but {0}")]
    Url(#[source] BoxError),
    /// The certificate authorities cannot be read, so the issuer's server cannot be verified.
    #[error("https:// needs certificate authorities, of this machine or in SSL_CERT_FILE, but {0}")]
    Authorities(#[source] BoxError),
}

impl KeySetUrl {
    /// The JWK set at `url`. Its server needs a certificate of an authority that this machine trusts, or of an authority in
    /// the file that `SSL_CERT_FILE` names.
    ///
    /// # Errors
    /// If keys cannot be read at `url` safely.
    pub fn new(url: &str) -> Result<Self, InvalidKeySetUrl> {
        let url: Uri = url.parse().map_err(|error| InvalidKeySetUrl::Url(BoxError::from(error)))?;
        match url.scheme_str() {
            Some("https") => {}
            Some("http") if url.host().is_some_and(is_this_machine) => {}
            _ => return Err(InvalidKeySetUrl::Unencrypted),
        }
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(ring::default_provider())
            .map_err(|error| InvalidKeySetUrl::Authorities(error.into()))?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self { url, client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    async fn get(&self) -> Result<String, BoxError> {
        let request = Request::get(&self.url).header(ACCEPT, "application/jwk-set+json, application/json");
        let response = self.client.request(request.body(Body::empty())?).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("{} returned status {}", self.url, response.status()).into());
        }
        let body = to_bytes(Body::new(response.into_body()), MAX_BYTES).await?;
        Ok(String::from_utf8(body.into())?)
    }
}

#[async_trait]
impl KeySet for KeySetUrl {
    async fn read(&self) -> Result<String, Error> {
        self.get().await.map_err(unavailable)
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn unavailable(error: impl Into<BoxError>) -> Error {
    Error::unavailable("jwks", error)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::response::Redirect;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn keys_are_read_at_a_url_or_the_error_has_the_cause() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = Router::new()
            .route("/keys", get(|| async { r#"{"keys":[]}"# }))
            .route("/elsewhere", get(|| async { Redirect::temporary("/keys") }))
            .route("/much", get(|| async { vec![b' '; MAX_BYTES + 1] }))
            .route("/binary", get(|| async { vec![0xff] }));
        tokio::spawn(async { axum::serve(listener, app).await });
        let read = async |path: &str| {
            let read = KeySetUrl::new(&format!("http://{address}{path}")).expect("an address").read().await;
            read.map_err(|error| (error.is_retryable(), error.to_string()))
        };
        assert_eq!(read("/keys").await.as_deref(), Ok(r#"{"keys":[]}"#));
        for (path, why) in [("/none", "404"), ("/elsewhere", "307"), ("/much", "limit"), ("/binary", "utf-8")] {
            let (is_retryable, error) = read(path).await.expect_err(path);
            assert!(is_retryable && error.contains(why), "{path}: {error}");
        }
    }

    #[tokio::test]
    async fn keys_are_read_from_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("jwks.json");
        let keys = KeySetFile::new(&path);
        let error = keys.read().await.expect_err("the file is missing").to_string();
        assert!(error.contains("jwks.json") && error.contains("No such file"), "{error}");
        std::fs::write(&path, "{}").expect("written");
        assert_eq!(keys.read().await.expect("read"), "{}");
    }

    #[test]
    fn urls_that_an_attacker_could_answer_are_rejected() {
        for good in ["https://issuer.example/jwks", "http://localhost:8080/a", "http://127.0.0.1/", "http://[::1]/"] {
            assert!(KeySetUrl::new(good).is_ok(), "{good}");
        }
        for bad in ["http://issuer.example/jwks", "http://10.0.0.1/", "ftp://localhost/", "issuer.example", "https://"]
        {
            assert!(KeySetUrl::new(bad).is_err(), "{bad}");
        }
    }
}
