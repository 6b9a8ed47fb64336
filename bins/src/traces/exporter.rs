//! The exporter of spans over OTLP, by gRPC or HTTP.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use axum::http::HeaderMap;
use hyper_rustls::{ConfigBuilderExt, HttpsConnectorBuilder};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{Compression, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::SpanData;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;

use super::config::{Protocol, TracesConfig};
use super::metrics::dropped;
use crate::Failure;

/// Exports spans, and counts the spans of failed exports as dropped. The first failure after a success is logged.
#[derive(Debug)]
pub(super) struct CountingExporter {
    exporter: SpanExporter,
    endpoint: String,
    /// The number of spans that wait for their export or are being exported.
    pub(super) queued: Arc<AtomicUsize>,
    is_failing: AtomicBool,
    /// The reason of the last failure over HTTP. The error of the exporter does not have it.
    reason: Reason,
}

type Reason = Arc<Mutex<Option<String>>>;

impl CountingExporter {
    /// An exporter for `config`. It connects at the first export.
    ///
    /// # Errors
    /// If a value of the configuration cannot be used, such as a certificate file.
    pub(super) fn new(config: &TracesConfig) -> Result<Self, Failure> {
        let reason = Reason::default();
        let exporter = match config.protocol {
            Protocol::Grpc => grpc(config),
            Protocol::Http => http(config, reason.clone()),
        };
        let exporter = exporter.map_err(Failure::Usage)?;
        Ok(Self {
            exporter,
            endpoint: config.endpoint.clone(),
            queued: Arc::default(),
            is_failing: false.into(),
            reason,
        })
    }

    fn note(&self, spans: usize, exported: &OTelSdkResult) {
        self.queued.fetch_sub(spans, Relaxed);
        match exported {
            Ok(()) => {
                metrics::counter!("netagg_trace_spans_exported_total").increment(spans as u64);
                if self.is_failing.swap(false, Relaxed) {
                    tracing::info!(endpoint = self.endpoint, "spans are exported again");
                }
            }
            Err(error) => {
                dropped("export_failed").increment(spans as u64);
                let reason = self.reason.lock().unwrap_or_else(PoisonError::into_inner).take();
                if !self.is_failing.swap(true, Relaxed) {
                    tracing::warn!(%error, reason, endpoint = self.endpoint, "spans cannot be exported; they are dropped and counted");
                }
            }
        }
    }
}

impl opentelemetry_sdk::trace::SpanExporter for CountingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        self.note(spans, &exported);
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

fn grpc(config: &TracesConfig) -> Result<SpanExporter, String> {
    let mut exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&config.endpoint)
        .with_timeout(config.timeout)
        .with_metadata(MetadataMap::from_headers(config.headers.clone()));
    if config.is_encrypted() {
        let tls = match &config.certificate {
            Some(file) => {
                let pem = read(file)?;
                roots(file, &pem)?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        exporter = exporter.with_tls_config(tls);
    }
    if config.is_compressed {
        exporter = exporter.with_compression(Compression::Gzip);
    }
    exporter.build().map_err(|error| format!("OTEL_EXPORTER_OTLP_*: {error}"))
}

fn http(config: &TracesConfig, reason: Reason) -> Result<SpanExporter, String> {
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let tls = match &config.certificate {
        Some(file) => tls.with_root_certificates(roots(file, &read(file)?)?),
        None if config.is_encrypted() => tls.with_native_roots().map_err(|error| error.to_string())?,
        None => tls.with_root_certificates(RootCertStore::empty()),
    };
    let connector =
        HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth()).https_or_http().enable_http1().build();
    let client = HyperClient::new(connector, config.timeout, None);
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(OnRuntime { client, headers: config.headers.clone(), runtime: Handle::current(), reason })
        .with_endpoint(&config.endpoint)
        .with_timeout(config.timeout);
    if config.is_compressed {
        exporter = exporter.with_compression(Compression::Gzip);
    }
    exporter.build().map_err(|error| format!("OTEL_EXPORTER_OTLP_*: {error}"))
}

/// The certificate authorities in `pem`, the text of the file that the variable names.
fn roots((variable, path): &(String, PathBuf), pem: &[u8]) -> Result<RootCertStore, String> {
    let in_file = |error: String| format!("{variable}: {}: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| in_file(error.to_string()))?;
        roots.add(certificate).map_err(|error| in_file(error.to_string()))?;
    }
    if roots.is_empty() { Err(in_file("no certificate; accepted: certificates as PEM".to_owned())) } else { Ok(roots) }
}

fn read((variable, path): &(String, PathBuf)) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{variable}: {}: {error}", path.display()))
}

/// Sends requests on the runtime of the program. The thread that exports spans has no runtime of its own.
#[derive(Debug)]
struct OnRuntime<C> {
    client: C,
    /// The configured headers. The builder of the exporter would decode their values a second time.
    headers: HeaderMap,
    runtime: Handle,
    reason: Reason,
}

#[async_trait]
impl<C: HttpClient + Clone + 'static> HttpClient for OnRuntime<C> {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        request.headers_mut().extend(self.headers.clone());
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move { client.send_bytes(request).await }).await?;
        let reason = match &sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("status {}", response.status())),
            Err(error) => Some(netagg_core::causes(&**error).join(": ")),
        };
        *self.reason.lock().unwrap_or_else(PoisonError::into_inner) = reason;
        sent
    }
}
