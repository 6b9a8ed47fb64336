//! The variables that say who may ask the API.

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

/// Who may ask, and how it is found out.
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
    /// Reads `API_AUTH` and what it needs, for an API at `addresses`.
    pub fn read(variables: &mut Variables, addresses: &ApiAddresses) -> Self {
        let methods = methods(variables, addresses);
        let keys_file = keys_file(variables);
        let issuer = issuer(variables, methods);
        let rate_limit = variables.parse(
            "API_RATE_LIMIT",
            "",
            "how often a key without a limit of its own, or else an address, may ask; default: as often as it likes",
            &InvalidRateLimit.to_string(),
            |text| text.parse().ok(),
        );
        let trusted_proxies = variables.parse(
            "API_TRUSTED_PROXIES",
            "",
            "proxies whose X-Forwarded-For is believed: addresses or networks",
            "addresses or networks, such as 10.0.0.0/8,192.0.2.1",
            |text| text.split(',').map(|part| network(part.trim())).collect(),
        );
        let cors_origins = variables.parse(
            "API_CORS_ORIGINS",
            "",
            "origins whose pages may ask over HTTP, or *; default: none",
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

    /// Whether callers show keys that PostgreSQL has.
    pub fn has_keys_in_database(&self) -> bool {
        self.methods.keys && self.keys_file.is_none()
    }

    /// What guards the servers. The database is that of the keys, unless they are in a file.
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

/// What a browser sends as `Origin`: a scheme and a host, without a path.
fn origin(text: &str) -> Option<HeaderValue> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_origin =
        text == "*" || host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '@', '*', ' ']));
    HeaderValue::from_str(text).ok().filter(|_| is_origin)
}

/// Where API keys are kept, if not in PostgreSQL.
pub fn keys_file(variables: &mut Variables) -> Option<PathBuf> {
    let meaning = "a file that the API keys are kept in; default: PostgreSQL";
    variables.optional_text("API_KEYS_FILE", "", meaning).map(PathBuf::from)
}

/// The keys in `file`, else those in the database.
pub fn api_keys(file: Option<PathBuf>, postgres: PgConfig) -> Arc<dyn ApiKeys> {
    match file {
        Some(file) => Arc::new(ApiKeyFile::new(file)),
        None => Arc::new(PgApiKeys::new(Postgres::new(postgres))),
    }
}

/// Whose tokens are good, if any.
fn issuer(variables: &mut Variables, methods: Methods) -> Option<TokenIssuer> {
    const KEYS: &str = "API_JWT_JWKS";
    let mut text = |name, meaning| {
        let text = variables.optional_text(name, "", meaning);
        if methods.tokens && text.is_none() {
            variables.problem(EnvError::new(name, "", format!("{meaning}; API_AUTH={} needs it", methods.name)));
        }
        text
    };
    let keys = text(KEYS, "where the issuer of tokens publishes its keys (a JWK set): an https:// address or a file");
    let issuer = text("API_JWT_ISSUER", "the issuer of tokens, as their iss says");
    let audience = text("API_JWT_AUDIENCE", "whom tokens are for, as their aud says");
    let (true, Some(keys)) = (methods.tokens, keys) else { return None };
    let keys: Arc<dyn KeySet> = if keys.contains("://") {
        let url = KeySetUrl::new(&keys);
        Arc::new(url.map_err(|error| variables.problem(EnvError::new(KEYS, &keys, error.to_string()))).ok()?)
    } else {
        Arc::new(KeySetFile::new(keys))
    };
    Some(TokenIssuer { issuer: issuer?, audience: audience?, keys })
}

/// Encrypts if there is a certificate. What cannot be served is found here, before anything starts.
fn tls(variables: &mut Variables) -> Option<Tls> {
    const CERTIFICATES: &str = "API_TLS_CERT_FILE";
    const KEY: &str = "API_TLS_KEY_FILE";
    const CLIENT_AUTHORITIES: &str = "API_TLS_CLIENT_CA_FILE";
    let mut file = |name, meaning| variables.optional_text(name, "", meaning).map(PathBuf::from);
    let certificates =
        file(CERTIFICATES, "the API's certificate and those up to its root, in PEM; default: plain text");
    let key = file(KEY, "the private key of that certificate, in PEM");
    let client_authorities = file(CLIENT_AUTHORITIES, "the authorities that clients' certificates must be of, in PEM");
    let (certificates, key) = match (certificates, key) {
        (Some(certificates), Some(key)) => (certificates, key),
        (None, None) if client_authorities.is_none() => return None,
        (certificates, key) => {
            for (name, file) in [(CERTIFICATES, certificates), (KEY, key)] {
                if file.is_none() {
                    let accepted = format!("a file in PEM, as {CERTIFICATES} and {KEY} go together");
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
    fn limits_proxies_and_origins_that_cannot_be_are_named() {
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
    fn a_certificate_and_its_key_go_together_and_can_be_served() {
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
    fn tokens_need_an_issuer_an_audience_and_keys_that_nobody_else_could_put_there() {
        let issuer = [("API_JWT_ISSUER", "https://issuer.example"), ("API_JWT_AUDIENCE", "netagg")];
        assert_eq!(problems(&issuer), "", "nobody asks for them");
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
    fn nobody_is_let_in_from_afar_by_accident() {
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
