//! The environment variables for authentication, rate limits, proxies, browsers and encryption of the API.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::http::HeaderValue;
use ipnet::IpNet;
use netagg_api::auth::{ApiKeyFile, ApiKeys, InvalidRateLimit, KeySet, KeySetFile, KeySetUrl, RateLimit, TokenIssuer};
use netagg_api::{Protection, Tls, TlsError, TlsFiles};
use netagg_pg::{PgApiKeys, PgConfig, Postgres};

use super::methods::{Methods, methods};
use crate::config::ApiAddresses;
use crate::process::{EnvError, Variables};

/// The protection of the API: authentication, rate limits, trusted proxies, allowed origins and encryption.
#[derive(Debug)]
pub struct ProtectionConfig {
    methods: Methods,
    issuer: Option<TokenIssuer>,
    keys_file: Option<PathBuf>,
    rate_limit: Option<RateLimit>,
    trusted_proxies: Vec<IpNet>,
    cors_origins: Vec<HeaderValue>,
    tls: Option<Tls>,
}

impl ProtectionConfig {
    /// Reads `API_AUTH` and the other `API_*` variables of the protection, for an API at `addresses`.
    pub fn read(variables: &mut Variables, addresses: &ApiAddresses) -> Self {
        variables.group("Access to the API");
        let methods = methods(variables, addresses);
        let keys_file = keys_file(variables);
        let issuer = issuer(variables, methods);
        let rate_limit = variables.parse(
            "API_RATE_LIMIT",
            "",
            "requests that an API key without its own limit, or a client address without a key, may send, such as 100/s; default: no limit",
            &InvalidRateLimit.to_string(),
            |text| text.parse().ok(),
        );
        let trusted_proxies = variables.parse(
            "API_TRUSTED_PROXIES",
            "",
            "addresses or networks of the proxies whose X-Forwarded-For header is trusted; default: none",
            "addresses or networks, such as 10.0.0.0/8,192.0.2.1",
            |text| text.split(',').map(|part| network(part.trim())).collect(),
        );
        let cors_origins = variables.parse(
            "API_CORS_ORIGINS",
            "",
            "origins of web pages that may call the HTTP API (CORS), or *; default: none",
            "origins, such as https://app.example,http://localhost:3000, or * alone",
            |text| {
                if text == "*" {
                    origin(text).map(|any| vec![any])
                } else {
                    text.split(',').map(|part| origin(part.trim()).filter(|origin| origin != "*")).collect()
                }
            },
        );
        let (trusted_proxies, cors_origins) = (trusted_proxies.unwrap_or_default(), cors_origins.unwrap_or_default());
        let tls = tls(variables);
        Self { methods, issuer, keys_file, rate_limit, trusted_proxies, cors_origins, tls }
    }

    /// Whether callers authenticate with API keys that are stored in PostgreSQL.
    pub fn has_keys_in_database(&self) -> bool {
        self.methods.keys && self.keys_file.is_none()
    }

    /// The protection of the servers. `postgres` is the database of the API keys, if they are not in a file.
    pub fn protection(self, postgres: PgConfig) -> Protection {
        let Self { methods, issuer, keys_file, rate_limit, trusted_proxies, cors_origins, tls } = self;
        let protection = Protection::default().with_trusted_proxies(trusted_proxies).with_cors_origins(cors_origins);
        let protection = match rate_limit {
            Some(limit) => protection.with_rate_limit(limit),
            None => protection,
        };
        let protection = match tls {
            Some(tls) => protection.with_tls(tls),
            None => protection,
        };
        let protection = match issuer {
            Some(issuer) => protection.with_tokens(issuer),
            None => protection,
        };
        if methods.keys { protection.with_keys(api_keys(keys_file, postgres)) } else { protection }
    }
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

/// An origin as a browser sends it in the header `Origin`: a scheme and a host, without a path.
fn origin(text: &str) -> Option<HeaderValue> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_origin =
        text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ' ']));
    HeaderValue::from_str(text).ok().filter(|_| is_origin)
}

/// The file that stores the API keys, if they are not in PostgreSQL.
pub fn keys_file(variables: &mut Variables) -> Option<PathBuf> {
    let meaning = "file that stores the API keys; default: they are stored in PostgreSQL";
    variables.optional_text("API_KEYS_FILE", "", meaning).map(PathBuf::from)
}

/// The API keys in `file`. Without a file, the API keys in the database.
pub fn api_keys(file: Option<PathBuf>, postgres: PgConfig) -> Arc<dyn ApiKeys> {
    match file {
        Some(file) => Arc::new(ApiKeyFile::new(file)),
        None => Arc::new(PgApiKeys::new(Postgres::new(postgres))),
    }
}

/// The issuer whose tokens the API accepts, if `API_AUTH` names tokens.
fn issuer(variables: &mut Variables, methods: Methods) -> Option<TokenIssuer> {
    const KEYS: &str = "API_JWT_JWKS";
    let mut text = |name, meaning| {
        let text = variables.optional_text(name, "", meaning);
        if methods.tokens && text.is_none() {
            variables.problem(EnvError::new(name, "", format!("{meaning}; API_AUTH={} needs it", methods.name)));
        }
        text
    };
    let keys = text(KEYS, "public keys of the token issuer (a JWK set): an https:// address or a file");
    let issuer = text("API_JWT_ISSUER", "issuer of the tokens: the expected value of their claim iss");
    let audience = text("API_JWT_AUDIENCE", "audience of the tokens: the expected value of their claim aud");
    let (true, Some(keys)) = (methods.tokens, keys) else { return None };
    let keys: Arc<dyn KeySet> = if keys.contains("://") {
        let url = KeySetUrl::new(&keys);
        Arc::new(url.map_err(|error| variables.problem(EnvError::new(KEYS, &keys, error.to_string()))).ok()?)
    } else {
        Arc::new(KeySetFile::new(keys))
    };
    Some(TokenIssuer { issuer: issuer?, audience: audience?, keys })
}

/// The encryption, if a certificate is configured. A certificate or key that cannot be used is a problem, so it is found
/// before anything starts.
fn tls(variables: &mut Variables) -> Option<Tls> {
    const CERTIFICATES: &str = "API_TLS_CERT_FILE";
    const KEY: &str = "API_TLS_KEY_FILE";
    const CLIENT_AUTHORITIES: &str = "API_TLS_CLIENT_CA_FILE";
    let mut file = |name, meaning| variables.optional_text(name, "", meaning).map(PathBuf::from);
    let certificates = file(CERTIFICATES, "certificate chain of the API, in PEM; default: no TLS");
    let key = file(KEY, "private key of this certificate, in PEM");
    let client_authorities = file(
        CLIENT_AUTHORITIES,
        "certificate authorities of the client certificates, in PEM: clients must present a certificate; default: no client certificates",
    );
    let (certificates, key) = match (certificates, key) {
        (Some(certificates), Some(key)) => (certificates, key),
        (None, None) if client_authorities.is_none() => return None,
        (certificates, key) => {
            for (name, file) in [(CERTIFICATES, certificates), (KEY, key)] {
                if file.is_none() {
                    let accepted = format!("a file in PEM, because {CERTIFICATES} and {KEY} need each other");
                    variables.problem(EnvError::new(name, "", accepted));
                }
            }
            return None;
        }
    };
    match Tls::read(TlsFiles { certificates, key, client_authorities }) {
        Ok(tls) => Some(tls),
        Err(error) => {
            let (name, path) = match &error {
                TlsError::Certificates { path, .. } => (CERTIFICATES, path),
                TlsError::Key { path, .. } => (KEY, path),
                TlsError::ClientAuthorities { path, .. } => (CLIENT_AUTHORITIES, path),
            };
            variables.problem(EnvError::new(name, &path.to_string_lossy(), format!("a file in PEM, but {error}")));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(values: &[(&str, &str)]) -> String {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut variables = Variables::from_values(values);
        let addresses = ApiAddresses::read(&mut variables);
        ProtectionConfig::read(&mut variables, &addresses);
        variables.check().err().unwrap_or_default().iter().map(EnvError::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn malformed_limits_proxies_and_origins_are_problems() {
        for (name, good, bad) in [
            ("API_RATE_LIMIT", &["100/s", "1/h"][..], &["100", "0/s", "1/d"][..]),
            ("API_TRUSTED_PROXIES", &["10.0.0.0/8", "::1, 192.0.2.1"], &["10.0.0.0/33", "proxy", "::1,"]),
            (
                "API_CORS_ORIGINS",
                &["*", "https://app.example", "http://localhost:3000, https://b.example"],
                &["app.example", "https://app.example/", "https://*.example", "https://a.example,*", "null"],
            ),
        ] {
            for value in good {
                assert_eq!(problems(&[(name, value)]), "", "{value}");
            }
            for value in bad {
                assert!(problems(&[(name, value)]).starts_with(&format!("{name}={value:?}")), "{value}");
            }
        }
    }

    #[test]
    fn a_certificate_without_its_key_and_files_that_cannot_be_served_are_problems() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        std::fs::write(path("nonsense"), "nonsense").expect("written");
        for (values, named) in [
            (&[("API_TLS_CERT_FILE", "nonsense")][..], "API_TLS_KEY_FILE=\"\""),
            (&[("API_TLS_KEY_FILE", "nonsense")], "API_TLS_CERT_FILE=\"\""),
            (&[("API_TLS_CLIENT_CA_FILE", "nonsense")], "API_TLS_CERT_FILE=\"\""),
            (&[("API_TLS_CERT_FILE", "nonsense"), ("API_TLS_KEY_FILE", "nonsense")], "no CERTIFICATE in PEM"),
            (&[("API_TLS_CERT_FILE", "missing"), ("API_TLS_KEY_FILE", "nonsense")], "No such file"),
        ] {
            let values: Vec<_> = values.iter().map(|(name, file)| (*name, path(file))).collect();
            let values: Vec<_> = values.iter().map(|(name, file)| (*name, file.as_str())).collect();
            let problems = problems(&values);
            assert!(problems.contains(named), "{values:?}: {problems}");
        }
    }

    #[test]
    fn tokens_need_an_issuer_an_audience_and_keys_from_a_source_that_no_third_party_can_change() {
        let issuer = [("API_JWT_ISSUER", "https://issuer.example"), ("API_JWT_AUDIENCE", "netagg")];
        assert_eq!(problems(&issuer), "", "without tokens in API_AUTH, the other variables may be missing");
        for auth in ["jwt", "keys,jwt"] {
            let problems = |values: &[(&str, &str)]| problems(&[&[("API_AUTH", auth)], values].concat());
            let missing = problems(&[]);
            for name in ["API_JWT_JWKS", "API_JWT_ISSUER", "API_JWT_AUDIENCE"] {
                assert!(missing.contains(&format!("{name}=\"\"")), "{missing}");
            }
            for good in ["https://issuer.example/jwks", "http://127.0.0.1:8080/jwks", "jwks.json"] {
                assert_eq!(problems(&[&issuer[..], &[("API_JWT_JWKS", good)]].concat()), "", "{good}");
            }
            for bad in ["http://issuer.example/jwks", "ftp://issuer.example/", "https://"] {
                let problem = problems(&[&issuer[..], &[("API_JWT_JWKS", bad)]].concat());
                assert!(problem.starts_with(&format!("API_JWT_JWKS={bad:?}")), "{problem}");
            }
        }
    }

    #[test]
    fn an_api_on_another_address_than_loopback_needs_an_explicit_api_auth() {
        for bind in ["127.0.0.1", "127.8.0.1", "::1", ""] {
            assert_eq!(problems(&[("API_BIND", bind)]), "", "{bind}");
        }
        for bind in ["0.0.0.0", "::", "10.0.0.1"] {
            let problem = problems(&[("API_BIND", bind)]);
            assert!(
                problem.starts_with(r#"API_AUTH="": accepted: none, keys, jwt"#) && problem.contains(bind),
                "{problem}"
            );
            for auth in ["none", "keys"] {
                assert_eq!(problems(&[("API_BIND", bind), ("API_AUTH", auth)]), "", "{bind} {auth}");
            }
        }
        assert!(problems(&[("API_AUTH", "password")]).starts_with(r#"API_AUTH="password": accepted: none, keys"#));
    }
}
