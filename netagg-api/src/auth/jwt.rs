//! Tokens of an issuer: JSON Web Tokens ([RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)), signed with one of the keys
//! that the issuer publishes ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::crypto::rust_crypto;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, decode_header};
use moka::sync::Cache;
use netagg_core::ports::{Clock, SystemClock};
use netagg_core::{Error, Timestamp, UserId};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::jwks::KeySet;
use super::known_keys::UNKNOWN;
use super::principal::{Principal, Scope};
use super::refreshing::{Refreshing, Times};
use super::rejection::Rejection;

/// The accepted difference between the issuer's clock and the clock of this machine.
const LEEWAY: Duration = Duration::from_secs(30);

/// How often the issuer's keys are read. A key that the issuer withdraws may stay valid for this time.
const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How soon the keys are read again after a failure, or if a token is signed with an unknown key.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// How long keys stay valid while they cannot be read again. So an outage of the issuer causes no outage of the API. An issuer
/// changes its keys within weeks, not hours.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// The minimum size of an RSA key. A shorter private key can be computed from its public key, now or soon.
const MIN_RSA_BITS: usize = 2_048;

/// The maximum number of cached tokens. A cached token needs no second check of its signature: a caller sends the same token
/// for minutes.
const MAX_REMEMBERED: u64 = 16_384;

/// The rejection of a token that the issuer signed, but whose claims have wrong types. It names the types, because the issuer
/// has to correct them, and an attacker learns nothing from them.
const CLAIMS: Rejection = Rejection::BadCredentials(
    "claims of the token have the wrong type: iss, sub and user_id are strings, exp and nbf are numbers, aud, scope and scp \
     are each a string or a list of strings",
);

/// The scope that lets users read their own detail.
const OWN_DETAIL: &str = "detail:read:own";

/// The issuer whose tokens are accepted.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct TokenIssuer {
    /// The required value of `iss`.
    pub issuer: String,
    /// The audience that `aud` must contain.
    pub audience: String,
    /// The keys of the issuer.
    pub keys: Arc<dyn KeySet>,
}

/// Checks tokens with the keys that were read last.
#[derive(Debug)]
pub(super) struct Tokens {
    issuer: TokenIssuer,
    known: Refreshing<IssuerKeys>,
}

/// The keys of an issuer, from one read.
#[derive(Debug)]
struct IssuerKeys {
    keys: Vec<Key>,
    /// The holders of tokens that one of these keys signed, by the SHA-256 of the token. Each read starts with an empty cache,
    /// so the tokens of a withdrawn key are rejected.
    holders: Cache<[u8; 32], Holder>,
}

/// A key that may sign tokens, and its algorithm.
#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// The holder of a token.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) principal: Arc<Principal>,
    /// The id under which the rate limit counts the holder.
    pub(super) caller: Arc<str>,
    valid_until: Timestamp,
}

/// The claims of a token. A claim with the value null counts as absent.
#[derive(Debug, Deserialize)]
struct Claims {
    iss: Option<String>,
    aud: Option<Strings>,
    sub: Option<String>,
    /// In seconds of Unix time. A fraction is allowed.
    exp: Option<f64>,
    nbf: Option<f64>,
    user_id: Option<String>,
    /// The scopes in the form of [RFC 8693](https://www.rfc-editor.org/rfc/rfc8693#section-4.2), or as a list.
    scope: Option<Strings>,
    scp: Option<Strings>,
}

/// One string, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Strings {
    One(String),
    Several(Vec<String>),
}

impl Strings {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Several(list) => list,
        }
    }

    /// The scopes. One string may contain several, separated by spaces.
    fn scopes(&self) -> impl Iterator<Item = &str> {
        self.as_slice().iter().flat_map(|text| text.split(' ').filter(|scope| !scope.is_empty()))
    }
}

impl Tokens {
    pub(super) fn new(issuer: TokenIssuer) -> Self {
        let times = Times { name: "issuer's keys", interval: INTERVAL, retry_interval: RETRY_INTERVAL, grace: GRACE };
        Self { issuer, known: Refreshing::new(times) }
    }

    /// Returns the holder of `token`.
    pub(super) fn holder_of(&self, token: &str) -> Result<Holder, Rejection> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        self.known.with(|known| {
            if let Some(holder) = known.holders.get(&hash) {
                return if SystemClock.now() < holder.valid_until { Ok(holder) } else { Err(UNKNOWN) };
            }
            let holder = self.check_token(token, &known.keys)?;
            known.holders.insert(hash, holder.clone());
            Ok(holder)
        })
    }

    fn check_token(&self, token: &str, keys: &[Key]) -> Result<Holder, Rejection> {
        let header = decode_header(token).map_err(|_| UNKNOWN)?;
        // `crit` names extensions that change the meaning of the token. A reader without them must reject it (RFC 7515,
        // 4.1.11).
        if header.crit.is_some() {
            return Err(UNKNOWN);
        }
        let mut fitting = keys.iter().filter(|key| {
            key.algorithm == header.alg && header.kid.as_ref().is_none_or(|kid| key.id.as_ref() == Some(kid))
        });
        let key = match (fitting.next(), fitting.next()) {
            (Some(key), None) => key,
            (None, _) => {
                // The issuer may have published this key after the last read.
                self.known.refresh_soon();
                return Err(UNKNOWN);
            }
            (Some(_), Some(_)) => return Err(UNKNOWN),
        };
        let claims: Claims = serde_json::from_slice(&key.payload(token)?).map_err(|_| CLAIMS)?;
        let valid_until = claims.check(&self.issuer, SystemClock.now())?;
        let principal = claims.into_principal()?;
        let caller = format!("{} {}", self.issuer.issuer, principal.name).into();
        Ok(Holder { principal: Arc::new(principal), caller, valid_until })
    }

    /// Checks that tokens can be verified now. The error has the reason.
    pub(super) fn check(&self) -> Result<(), String> {
        self.known.check()
    }

    /// Reads the keys again at the interval, until `shutdown`.
    pub(super) async fn refresh_loop(&self, shutdown: &CancellationToken) {
        let read = || async {
            let known = IssuerKeys::parse(&self.issuer.keys.read().await?)?;
            if known.keys.is_empty() {
                tracing::warn!(
                    "the issuer publishes no key for RS256 (from 2,048 bits), ES256 or EdDSA, so every token is rejected"
                );
            }
            Ok(known)
        };
        self.known.refresh_loop(shutdown, read).await;
    }
}

impl IssuerKeys {
    fn parse(json: &str) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Published {
            keys: Vec<Value>,
        }
        let published: Published = serde_json::from_str(json).map_err(|error| Error::unavailable("jwks", error))?;
        // Keys that cannot be parsed are skipped: they are of another kind.
        let keys = published.keys.into_iter().filter_map(|key| Key::of(&serde_json::from_value(key).ok()?)).collect();
        Ok(Self { keys, holders: Cache::new(MAX_REMEMBERED) })
    }
}

impl Key {
    /// Returns the key if it may sign tokens. Returns `None` for other keys, which an issuer may publish in the same set.
    fn of(jwk: &Jwk) -> Option<Self> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if modulus_bits(&rsa.n) >= MIN_RSA_BITS => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            _ => return None,
        };
        let common = &jwk.common;
        let is_for_signatures =
            common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
        let has_algorithm = common.key_algorithm.is_none_or(|named| named.to_string().parse() == Ok(algorithm));
        if !is_for_signatures || !has_algorithm {
            return None;
        }
        Some(Self { id: common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
    }

    /// Verifies the signature of `token` with this key, and returns its payload.
    ///
    /// It does not use `jsonwebtoken::decode`, which panics if another crate of the program enables its second backend.
    fn payload(&self, token: &str) -> Result<Vec<u8>, Rejection> {
        let (message, signature) = token.rsplit_once('.').ok_or(UNKNOWN)?;
        let (_, payload) = message.rsplit_once('.').ok_or(UNKNOWN)?;
        let signature = BASE64.decode(signature).map_err(|_| UNKNOWN)?;
        let verifier = (rust_crypto::DEFAULT_PROVIDER.verifier_factory)(&self.algorithm, &self.key);
        verifier.map_err(|_| UNKNOWN)?.verify(message.as_bytes(), &signature).map_err(|_| UNKNOWN)?;
        BASE64.decode(payload).map_err(|_| UNKNOWN)
    }
}

/// The size in bits of a number in base64url without padding: each character has 6 bits.
fn modulus_bits(base64: &str) -> usize {
    base64.len() * 6
}

impl Claims {
    /// Returns until when a token with these claims is valid, if `issuer` issued it for this API and it is valid at `now`.
    fn check(&self, issuer: &TokenIssuer, now: Timestamp) -> Result<Timestamp, Rejection> {
        let leeway = LEEWAY.as_secs_f64();
        let valid_until = timestamp(self.exp.ok_or(UNKNOWN)? + leeway);
        let valid_from = self.nbf.map(|nbf| timestamp(nbf - leeway));
        let is_of_issuer = self.iss.as_ref() == Some(&issuer.issuer);
        let is_for_us = self.aud.as_ref().is_some_and(|aud| aud.as_slice().contains(&issuer.audience));
        let is_valid = is_of_issuer && is_for_us && now < valid_until && valid_from.is_none_or(|from| from <= now);
        is_valid.then_some(valid_until).ok_or(UNKNOWN)
    }

    /// Returns the principal. With the scope `detail:read:own` its user is `user_id`, or else `sub`. Rejects a token without
    /// `sub`, and a token whose user is not a valid user id.
    fn into_principal(self) -> Result<Principal, Rejection> {
        let sub = self.sub.ok_or(UNKNOWN)?;
        let shown: BTreeSet<&str> = self.scope.iter().chain(&self.scp).flat_map(Strings::scopes).collect();
        let mut scopes: BTreeSet<Scope> = shown.iter().filter_map(|scope| scope.parse().ok()).collect();
        let mut user_id = self.user_id.clone();
        if shown.contains(OWN_DETAIL) && !scopes.contains(&Scope::DetailRead) {
            scopes.insert(Scope::DetailRead);
            user_id = user_id.or_else(|| Some(sub.clone()));
        }
        let user_id = user_id.map(UserId::new).transpose().map_err(|_| UNKNOWN)?;
        Ok(Principal { name: sub, scopes, user_id, rate_limit: None })
    }
}

/// Converts seconds of Unix time. A time beyond the supported range becomes the end of the range.
fn timestamp(seconds: f64) -> Timestamp {
    #[allow(clippy::cast_possible_truncation)] // a float beyond i64 becomes the end of i64
    let micros = (seconds * 1e6) as i64;
    Timestamp::from_micros(micros).unwrap_or(if micros < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use async_trait::async_trait;
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use rcgen::KeyPair;
    use serde_json::json;

    use super::*;

    /// A key set with the given keys. `None` means that it cannot be read.
    #[derive(Debug, Default)]
    struct Published(Mutex<Option<Value>>);

    impl Published {
        fn put(&self, keys: Option<&[&Signer]>) {
            let keys = keys.map(|keys| json!({"keys": keys.iter().map(|key| &key.jwk).collect::<Vec<_>>()}));
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = keys;
        }
    }

    #[async_trait]
    impl KeySet for Published {
        async fn read(&self) -> Result<String, Error> {
            let published = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            published
                .as_ref()
                .map(Value::to_string)
                .ok_or_else(|| Error::unavailable("jwks", "unavailable in this test"))
        }
    }

    struct Signer {
        jwk: Value,
        key: EncodingKey,
    }

    impl Signer {
        fn new(id: &str) -> Self {
            // Signing needs a default backend: a build of the whole workspace enables two.
            let _ = rust_crypto::DEFAULT_PROVIDER.install_default();
            let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
            let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": BASE64.encode(pair.public_key_raw())});
            Self { jwk, key: EncodingKey::from_ed_der(pair.serialized_der()) }
        }

        fn token(&self) -> String {
            let header = Header { kid: self.jwk["kid"].as_str().map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
            let claims = json!({"iss": "i", "aud": "a", "sub": "billing", "exp": 253_402_300_799_i64});
            encode(&header, &claims, &self.key).expect("signed")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_rotated_while_tokens_are_checked() {
        let (old, new) = (Signer::new("old"), Signer::new("new"));
        let (by_old, by_new) = (old.token(), new.token());
        let (published, shutdown) = (Arc::new(Published::default()), CancellationToken::new());
        let issuer = TokenIssuer { issuer: "i".to_owned(), audience: "a".to_owned(), keys: published.clone() };
        let tokens = Arc::new(Tokens::new(issuer));
        let holder = |token: &str| tokens.holder_of(token).map(|holder| holder.principal.name.clone());
        let billing = Ok("billing".to_owned());
        assert_eq!(holder(&by_old), Err(Rejection::Unavailable), "the keys were not read yet");
        let refresh_loop = tokio::spawn({
            let (tokens, shutdown) = (tokens.clone(), shutdown.clone());
            async move { tokens.refresh_loop(&shutdown).await }
        });
        tokio::time::sleep(RETRY_INTERVAL / 2).await;
        assert!(tokens.check().expect_err("no keys were read").ends_with("unavailable in this test"));

        published.put(Some(&[&old]));
        tokio::time::sleep(RETRY_INTERVAL).await;
        assert_eq!(tokens.check(), Ok(()));
        assert_eq!(holder(&by_old), billing);

        published.put(Some(&[&new, &old]));
        tokio::time::sleep(2 * RETRY_INTERVAL).await;
        assert_eq!(holder(&by_new), Err(UNKNOWN), "no token of the new key was seen before");
        tokio::time::sleep(RETRY_INTERVAL).await;
        assert_eq!(holder(&by_new), billing, "the first token of the new key caused a read");

        published.put(Some(&[&new]));
        tokio::time::sleep(INTERVAL + RETRY_INTERVAL).await;
        assert_eq!(holder(&by_old), Err(UNKNOWN), "the key was withdrawn");

        published.put(None);
        tokio::time::sleep(GRACE - INTERVAL - RETRY_INTERVAL).await;
        assert_eq!(
            (holder(&by_new), tokens.check()),
            (billing.clone(), Ok(())),
            "the keys stay valid during an outage"
        );
        tokio::time::sleep(INTERVAL + RETRY_INTERVAL).await;
        assert_eq!(holder(&by_new), Err(Rejection::Unavailable), "the outage is too long");
        published.put(Some(&[&new]));
        tokio::time::sleep(RETRY_INTERVAL).await;
        assert_eq!(holder(&by_new), billing);
        shutdown.cancel();
        refresh_loop.await.expect("the refresh loop ends");
    }

    #[test]
    fn keys_that_cannot_sign_tokens_are_skipped() {
        let good = Signer::new("good").jwk;
        let with = |name: &str, value: &str| {
            let mut key = good.clone();
            key[name] = value.into();
            key
        };
        let rsa = |bytes: usize| json!({"kty": "RSA", "e": "AQAB", "n": BASE64.encode(vec![0xff; bytes])});
        let keys = |keys: &[Value]| IssuerKeys::parse(&json!({ "keys": keys }).to_string()).expect("a set").keys.len();
        for other in [
            rsa(128),
            with("use", "enc"),
            with("alg", "RS256"),
            with("crv", "Ed448"),
            with("crv", "new"),
            with("kty", "new"),
            json!({"kty": "oct", "k": BASE64.encode("a secret")}),
            json!({"kty": "EC", "crv": "P-256", "x": "AA"}),
            json!("nonsense"),
        ] {
            assert_eq!(keys(&[other.clone(), good.clone()]), 1, "{other}");
        }
        assert_eq!(keys(&[rsa(256), with("alg", "EdDSA"), with("use", "sig")]), 3);
        for nonsense in ["", "[]", "{}", r#"{"keys": {}}"#] {
            assert!(IssuerKeys::parse(nonsense).is_err_and(|error| error.is_retryable()), "{nonsense}");
        }
    }
}
