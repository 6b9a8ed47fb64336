//! Authentication with tokens of an issuer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use netagg_api::Protection;
use netagg_api::auth::{KeySet, TokenIssuer};
use netagg_api::proto::usage_service_client::UsageServiceClient;
use netagg_api::proto::{GetGlobalAggRequest, GetUserDetailRequest};
use netagg_core::Error;
use rcgen::KeyPair;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Request;

use crate::http_client::{Response, request_with};
use crate::servers::{SOON, Servers};

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "netagg";
const DETAIL: &str = "/api/v1/users/7/detail";
const AGGREGATES: &str = "/api/v1/aggregates?granularity=DAY";

/// The key set that an issuer publishes.
#[derive(Debug)]
struct Published(String);

#[async_trait]
impl KeySet for Published {
    async fn read(&self) -> Result<String, Error> {
        Ok(self.0.clone())
    }
}

/// A signing key of the issuer.
struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
}

impl Signer {
    fn new(algorithm: Algorithm, id: &str) -> Self {
        // Signing needs a default backend: a build of the whole workspace enables two.
        let _ = jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER.install_default();
        let base64 = |bytes: &[u8]| base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes);
        match algorithm {
            Algorithm::ES256 => {
                let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
                let (x, y) = pair.public_key_raw()[1..].split_at(32);
                let jwk = json!({"kty": "EC", "crv": "P-256", "kid": id, "x": base64(x), "y": base64(y)});
                Self { algorithm, key: EncodingKey::from_ec_der(pair.serialized_der()), jwk }
            }
            Algorithm::EdDSA => {
                let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
                let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": base64(pair.public_key_raw())});
                Self { algorithm, key: EncodingKey::from_ed_der(pair.serialized_der()), jwk }
            }
            Algorithm::RS256 => {
                // The key was generated for this test once, because generation is slow.
                let key = EncodingKey::from_rsa_der(include_bytes!("rsa_key.der"));
                let mut jwk = json!(Jwk::from_encoding_key(&key, algorithm).expect("a key"));
                jwk["kid"] = id.into();
                Self { algorithm, key, jwk }
            }
            other => panic!("{other:?}"),
        }
    }

    fn sign(&self, claims: &Value) -> String {
        let kid = self.jwk["kid"].as_str().map(str::to_owned);
        encode(&Header { kid, ..Header::new(self.algorithm) }, claims, &self.key).expect("signed")
    }
}

fn set(signers: &[&Signer]) -> String {
    let keys: Vec<_> = signers.iter().map(|signer| &signer.jwk).collect();
    json!({ "keys": keys }).to_string()
}

fn in_seconds(seconds: i64) -> i64 {
    chrono::Utc::now().timestamp() + seconds
}

/// Valid claims, changed by `others`: each claim in `others` replaces or adds a claim, and null removes it.
fn claims(others: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "billing", "exp": in_seconds(300), "nbf": in_seconds(-1),
        "scope": "openid detail:read aggregates:read",
    });
    for (name, value) in others.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
    claims
}

struct Guarded {
    servers: Servers,
    _refresh_loop: DropGuard,
}

impl Guarded {
    async fn start(signers: &[&Signer]) -> Self {
        Self::start_with(Arc::new(Published(set(signers)))).await
    }

    async fn start_with(published: Arc<dyn KeySet>) -> Self {
        let issuer = TokenIssuer { issuer: ISSUER.to_owned(), audience: AUDIENCE.to_owned(), keys: published };
        let protection = Protection::default().with_tokens(issuer);
        let stop_refresh = CancellationToken::new();
        tokio::spawn({
            let (protection, stop_refresh) = (protection.clone(), stop_refresh.clone());
            async move { protection.refresh_loop(&stop_refresh).await }
        });
        let known = async {
            while protection.check().is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, known).await.expect("the keys are read");
        let servers = Servers::start_protected(protection).await;
        Self { servers, _refresh_loop: stop_refresh.drop_guard() }
    }

    async fn http(&self, path: &str, token: &str) -> Response {
        request_with(self.servers.http, "GET", path, &format!("authorization: Bearer {token}\r\n")).await
    }
}

#[tokio::test]
async fn a_token_of_each_kind_gets_in_over_both_transports() {
    let signers = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
        .map(|algorithm| Signer::new(algorithm, &format!("{algorithm:?}")));
    let guarded = Guarded::start(&signers.each_ref()).await;
    for signer in &signers {
        let token = signer.sign(&claims(json!({})));
        for path in [DETAIL, AGGREGATES] {
            assert_eq!(guarded.http(path, &token).await.status, 200, "{path}");
        }
        let mut client =
            UsageServiceClient::connect(format!("http://{}", guarded.servers.grpc)).await.expect("connected");
        let request = GetGlobalAggRequest { granularity: "DAY".to_owned(), ..GetGlobalAggRequest::default() };
        let mut request = Request::new(request);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
        client.get_global_agg(request).await.expect("totals");
        client.get_user_detail(GetUserDetailRequest::default()).await.expect_err("the request has no credentials");
    }
    guarded.servers.stopped().await;
}

#[tokio::test]
async fn all_invalid_tokens_get_the_same_response() {
    let signer = Signer::new(Algorithm::ES256, "es");
    let guarded = Guarded::start(&[&signer]).await;
    let valid = signer.sign(&claims(json!({})));
    let [head, body, signature] = valid.split('.').collect::<Vec<_>>()[..] else { panic!("three parts: {valid}") };
    let public = signer.jwk.to_string();
    let by_public_key = encode(
        &Header { kid: Some("es".to_owned()), ..Header::new(Algorithm::HS256) },
        &claims(json!({})),
        &EncodingKey::from_secret(public.as_bytes()),
    )
    .expect("signed");
    let header = Header { kid: Some("es".to_owned()), ..Header::new(Algorithm::ES256) };
    let critical = Header { crit: Some(vec!["b64".to_owned()]), ..header };
    let invalid = [
        ("expired", signer.sign(&claims(json!({"exp": in_seconds(-60)})))),
        ("not valid yet", signer.sign(&claims(json!({"nbf": in_seconds(60)})))),
        ("without an expiry", signer.sign(&claims(json!({"exp": null})))),
        ("without a subject", signer.sign(&claims(json!({"sub": null})))),
        ("of another issuer", signer.sign(&claims(json!({"iss": "https://another.example"})))),
        ("of no issuer", signer.sign(&claims(json!({"iss": null})))),
        ("for another audience", signer.sign(&claims(json!({"aud": ["others"]})))),
        ("without an audience", signer.sign(&claims(json!({"aud": null})))),
        ("of another key with the same id", Signer::new(Algorithm::ES256, "es").sign(&claims(json!({})))),
        ("of an unknown key", Signer::new(Algorithm::ES256, "new").sign(&claims(json!({})))),
        ("of another algorithm", Signer::new(Algorithm::EdDSA, "es").sign(&claims(json!({})))),
        ("signed with the public key as a secret", by_public_key),
        ("with a critical extension", encode(&critical, &claims(json!({})), &signer.key).expect("signed")),
        ("unsigned", format!("eyJhbGciOiJub25lIn0.{body}.")),
        ("with another body", format!("{head}.{}.{signature}", body.replace('a', "b"))),
        ("with an invalid user id", signer.sign(&claims(json!({"user_id": ""})))),
        ("without a signature part", format!("{head}.{body}")),
        ("not a token", "a.b.c".to_owned()),
        ("dots", "..".to_owned()),
    ];
    let expected = guarded.http(AGGREGATES, "nonsense").await;
    assert_eq!(expected.status, 401);
    for (what, token) in invalid {
        let response = guarded.http(AGGREGATES, &token).await;
        assert_eq!((response.status, &response.body), (401, &expected.body), "{what}");
        assert!(response.header("www-authenticate").is_some_and(|text| text.contains("invalid_token")), "{what}");
    }
    assert_eq!(guarded.http(AGGREGATES, &signer.sign(&claims(json!({"aud": ["a", AUDIENCE]})))).await.status, 200);
    guarded.servers.stopped().await;
}

#[tokio::test]
async fn a_cached_token_expires_in_time() {
    let signer = Signer::new(Algorithm::ES256, "es");
    let guarded = Guarded::start(&[&signer]).await;
    // The clocks may differ by 30 s, so this token is valid for 4 s.
    let token = signer.sign(&claims(json!({"exp": in_seconds(-26)})));
    assert_eq!(guarded.http(AGGREGATES, &token).await.status, 200);
    let rejected = async {
        while guarded.http(AGGREGATES, &token).await.status == 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, rejected).await.expect("the token expires");
    assert_eq!(guarded.http(AGGREGATES, &token).await.status, 401);
    guarded.servers.stopped().await;
}

#[tokio::test]
async fn a_token_is_limited_to_its_scopes_and_its_user() {
    let signer = Signer::new(Algorithm::EdDSA, "ed");
    let guarded = Guarded::start(&[&signer]).await;
    for (claim, detail, aggregates) in [
        (json!({"scope": "detail:read"}), 200, 403),
        (json!({"scope": ["aggregates:read"]}), 403, 200),
        (json!({"scope": null, "scp": ["detail:read", "aggregates:read"]}), 200, 200),
        (json!({"scope": "detail:write openid"}), 403, 403),
        (json!({"scope": null}), 403, 403),
        (json!({"scope": "detail:read", "user_id": "7"}), 200, 403),
        (json!({"scope": "detail:read", "user_id": "8"}), 403, 403),
        (json!({"scope": "detail:read:own", "sub": "7"}), 200, 403),
        (json!({"scope": "detail:read:own", "sub": "8"}), 403, 403),
        (json!({"scope": "detail:read:own", "sub": "8", "user_id": "7"}), 200, 403),
    ] {
        let token = signer.sign(&claims(claim.clone()));
        assert_eq!(guarded.http(DETAIL, &token).await.status, detail, "{claim}");
        assert_eq!(guarded.http(AGGREGATES, &token).await.status, aggregates, "{claim}");
    }
    guarded.servers.stopped().await;
}

#[tokio::test]
async fn a_claim_that_is_null_is_absent_and_one_of_another_type_is_named() {
    let signer = Signer::new(Algorithm::ES256, "es");
    let guarded = Guarded::start(&[&signer]).await;
    let sign = |others: Value| {
        let mut claims = claims(json!({}));
        for (name, value) in others.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        signer.sign(&claims)
    };
    for (claims, detail) in [
        (json!({"scope": null, "scp": ["detail:read"]}), 200),
        (json!({"scp": null}), 200),
        (json!({"scope": null, "scp": null}), 403),
        (json!({"scope": null, "scp": "detail:read aggregates:read"}), 200),
        (json!({"scope": "", "scp": []}), 403),
        (json!({"user_id": null}), 200),
        (json!({"nbf": null}), 200),
        (json!({"nbf": in_seconds(-1) as f64 + 0.5, "exp": in_seconds(300) as f64 + 0.5}), 200),
        (json!({"iat": null, "jti": null, "azp": 7}), 200),
        // Required claims.
        (json!({"exp": null}), 401),
        (json!({"aud": null}), 401),
        (json!({"aud": [null]}), 401),
        (json!({"iss": null}), 401),
        (json!({"sub": null}), 401),
    ] {
        let response = guarded.http(DETAIL, &sign(claims.clone())).await;
        assert_eq!(response.status, detail, "{claims}: {}", response.body);
    }
    // Null also counts as absent in the header and in the key set.
    let mut nulls = Signer::new(Algorithm::ES256, "nulls");
    for name in ["use", "alg", "key_ops", "x5c", "x5t"] {
        nulls.jwk[name] = Value::Null;
    }
    let other = Guarded::start(&[&nulls]).await;
    let claims_of = |name: &str| claims(json!({"sub": name}));
    assert_eq!(other.http(DETAIL, &nulls.sign(&claims_of("a"))).await.status, 200);
    let header =
        base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(br#"{"alg":"ES256","typ":null,"kid":null,"crit":null}"#);
    let body = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(claims_of("b").to_string());
    let message = format!("{header}.{body}");
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &nulls.key, Algorithm::ES256).expect("signed");
    assert_eq!(other.http(DETAIL, &format!("{message}.{signature}")).await.status, 200);
    other.servers.stopped().await;

    for claims in [
        json!({"scope": 7}),
        json!({"scope": {"detail:read": true}}),
        json!({"scp": ["detail:read", null]}),
        json!({"user_id": 7}),
        json!({"nbf": "soon"}),
        json!({"exp": "2100-01-01"}),
        json!({"sub": 7}),
        json!({"aud": {"a": "b"}}),
        json!({"iss": [ISSUER]}),
    ] {
        let response = guarded.http(DETAIL, &sign(claims.clone())).await;
        assert_eq!(response.status, 401, "{claims}");
        let detail = response.problem()["detail"].as_str().expect("a detail").to_owned();
        let (name, _) = claims.as_object().and_then(|claims| claims.iter().next()).expect("a claim");
        assert!(detail.contains("wrong type") && detail.contains(name), "{claims}: {detail}");
        // Only holders of a signed token get this detail: the claims of a token without a valid signature are not read.
        let forged = Signer::new(Algorithm::ES256, "es").sign(&claims);
        assert!(!guarded.http(DETAIL, &forged).await.body.contains("wrong type"), "{claims}");
    }
    guarded.servers.stopped().await;
}
