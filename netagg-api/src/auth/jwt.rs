//! Tokens of an issuer: JSON Web Tokens ([RFC 7519](https://www.rfc-editor.org/rfc/rfc7519)) signed with one of the keys
//! that it publishes ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)).

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
use super::refusal::Refusal;

/// How far the issuer's clock may be from this one.
const LEEWAY: Duration = Duration::from_secs(30);

/// How often the issuer's keys are read: one that it takes back is good so long.
const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// How soon they are read again for a token of a key that is not known, or after a failure.
const HURRIED: Duration = Duration::from_secs(10);

/// How long keys are good that cannot be read again: an outage of the issuer is not one of the API, and its keys change
/// within weeks, not hours.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// An RSA key shorter than this can be computed from its public half, or soon will be.
const MIN_RSA_BITS: usize = 2_048;

/// Tokens whose signature need not be checked again: a caller shows the same one for minutes.
const MAX_REMEMBERED: u64 = 16_384;

/// Of a token that the issuer has signed, but whose claims are of other types: what is wrong is the issuer's to mend, and
/// tells an attacker nothing.
const CLAIMS: Refusal = Refusal::BadCredentials(
    "claims of the token have the wrong type: iss, sub and user_id are strings, exp and nbf are numbers, aud, scope and scp \
     are each a string or a list of strings",
);

/// The scope that lets a user read what is theirs.
const OWN_DETAIL: &str = "detail:read:own";

/// Whose tokens are good.
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs)]
pub struct TokenIssuer {
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must name.
    pub audience: String,
    /// Where its keys are.
    pub keys: Arc<dyn KeySet>,
}

/// Checks tokens by the keys that were read last.
#[derive(Debug)]
pub(super) struct Tokens {
    issuer: TokenIssuer,
    known: Refreshing<IssuerKeys>,
}

/// One reading of an issuer's keys.
#[derive(Debug)]
struct IssuerKeys {
    keys: Vec<Key>,
    /// Those who showed a token that one of these keys has signed, by its SHA-256. The next reading starts anew, so that
    /// a key that is taken back takes its tokens along.
    holders: Cache<[u8; 32], Holder>,
}

/// A key that may sign tokens, and how.
#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Who showed a token.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) principal: Arc<Principal>,
    /// As whom they are counted.
    pub(super) caller: Arc<str>,
    good_until: Timestamp,
}

/// What a token says. A claim that is null is absent.
#[derive(Debug, Deserialize)]
struct Claims {
    iss: Option<String>,
    aud: Option<Strings>,
    sub: Option<String>,
    /// Seconds of Unix time, maybe with a fraction.
    exp: Option<f64>,
    nbf: Option<f64>,
    user_id: Option<String>,
    /// Scopes as [RFC 8693](https://www.rfc-editor.org/rfc/rfc8693#section-4.2) writes them, or as a list.
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

    /// The scopes: several may stand in one string.
    fn scopes(&self) -> impl Iterator<Item = &str> {
        self.as_slice().iter().flat_map(|text| text.split(' ').filter(|scope| !scope.is_empty()))
    }
}

impl Tokens {
    pub(super) fn new(issuer: TokenIssuer) -> Self {
        let times = Times { what: "issuer's keys", interval: INTERVAL, hurried: HURRIED, grace: GRACE };
        Self { issuer, known: Refreshing::new(times) }
    }

    /// Who shows `token`.
    pub(super) fn holder_of(&self, token: &str) -> Result<Holder, Refusal> {
        let hash: [u8; 32] = Sha256::digest(token).into();
        self.known.with(|known| {
            if let Some(holder) = known.holders.get(&hash) {
                return if SystemClock.now() < holder.good_until { Ok(holder) } else { Err(UNKNOWN) };
            }
            let holder = self.check_token(token, &known.keys)?;
            known.holders.insert(hash, holder.clone());
            Ok(holder)
        })
    }

    fn check_token(&self, token: &str, keys: &[Key]) -> Result<Holder, Refusal> {
        let header = decode_header(token).map_err(|_| UNKNOWN)?;
        // An extension that changes what the token means: it must not be read without (RFC 7515, 4.1.11).
        if header.crit.is_some() {
            return Err(UNKNOWN);
        }
        let mut fitting = keys.iter().filter(|key| {
            key.algorithm == header.alg && header.kid.as_ref().is_none_or(|kid| key.id.as_ref() == Some(kid))
        });
        let key = match (fitting.next(), fitting.next()) {
            (Some(key), None) => key,
            (None, _) => {
                // Maybe a key that is new.
                self.known.refresh_soon();
                return Err(UNKNOWN);
            }
            (Some(_), Some(_)) => return Err(UNKNOWN),
        };
        let claims: Claims = serde_json::from_slice(&key.payload(token)?).map_err(|_| CLAIMS)?;
        let good_until = claims.check(&self.issuer, SystemClock.now())?;
        let principal = claims.into_principal()?;
        let caller = format!("{} {}", self.issuer.issuer, principal.name).into();
        Ok(Holder { principal: Arc::new(principal), caller, good_until })
    }

    /// Whether tokens can be checked now.
    pub(super) fn check(&self) -> Result<(), String> {
        self.known.check()
    }

    /// Reads the keys again and again until `shutdown`.
    pub(super) async fn refresh_loop(&self, shutdown: &CancellationToken) {
        let read = || async {
            let known = IssuerKeys::parse(&self.issuer.keys.read().await?)?;
            if known.keys.is_empty() {
                tracing::warn!(
                    "the issuer publishes no key for RS256 (from 2,048 bits), ES256 or EdDSA: no token is good"
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
        // Those that cannot be read are of a kind that is none of ours.
        let keys = published.keys.into_iter().filter_map(|key| Key::of(&serde_json::from_value(key).ok()?)).collect();
        Ok(Self { keys, holders: Cache::new(MAX_REMEMBERED) })
    }
}

impl Key {
    /// Of keys for anything else, there is none: an issuer may publish them in the same place.
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
        let is_of_it = common.key_algorithm.is_none_or(|named| named.to_string().parse() == Ok(algorithm));
        if !is_for_signatures || !is_of_it {
            return None;
        }
        Some(Self { id: common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
    }

    /// What `token` says, which this key has signed.
    ///
    /// Not by `jsonwebtoken::decode`: that panics where another crate of the program has turned on its second backend.
    fn payload(&self, token: &str) -> Result<Vec<u8>, Refusal> {
        let (message, signature) = token.rsplit_once('.').ok_or(UNKNOWN)?;
        let (_, payload) = message.rsplit_once('.').ok_or(UNKNOWN)?;
        let signature = BASE64.decode(signature).map_err(|_| UNKNOWN)?;
        let verifier = (rust_crypto::DEFAULT_PROVIDER.verifier_factory)(&self.algorithm, &self.key);
        verifier.map_err(|_| UNKNOWN)?.verify(message.as_bytes(), &signature).map_err(|_| UNKNOWN)?;
        BASE64.decode(payload).map_err(|_| UNKNOWN)
    }
}

/// The length of a number in base64url without padding, of which 4 characters are 3 bytes.
fn modulus_bits(base64: &str) -> usize {
    base64.len() * 6
}

impl Claims {
    /// Until when a token of `issuer` with these claims is good, if it is at `now`.
    fn check(&self, issuer: &TokenIssuer, now: Timestamp) -> Result<Timestamp, Refusal> {
        let leeway = LEEWAY.as_secs_f64();
        let good_until = timestamp(self.exp.ok_or(UNKNOWN)? + leeway);
        let good_from = self.nbf.map(|nbf| timestamp(nbf - leeway));
        let is_of_issuer = self.iss.as_ref() == Some(&issuer.issuer);
        let is_for_us = self.aud.as_ref().is_some_and(|aud| aud.as_slice().contains(&issuer.audience));
        let is_good = is_of_issuer && is_for_us && now < good_until && good_from.is_none_or(|from| from <= now);
        is_good.then_some(good_until).ok_or(UNKNOWN)
    }

    /// A token of somebody who is nobody's user is no good for reading their own.
    fn into_principal(self) -> Result<Principal, Refusal> {
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

/// Seconds of Unix time; beyond the calendar it is its end.
fn timestamp(seconds: f64) -> Timestamp {
    #[allow(clippy::cast_possible_truncation)] // it ends where i64 does
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

    /// Keys that are published, or cannot be read.
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
            published.as_ref().map(Value::to_string).ok_or_else(|| Error::unavailable("jwks", "away"))
        }
    }

    struct Signer {
        jwk: Value,
        key: EncodingKey,
    }

    impl Signer {
        fn new(id: &str) -> Self {
            // To sign with: in a build of the whole workspace there are two.
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
        assert_eq!(holder(&by_old), Err(Refusal::Unavailable), "not known yet");
        let keeping = tokio::spawn({
            let (tokens, shutdown) = (tokens.clone(), shutdown.clone());
            async move { tokens.refresh_loop(&shutdown).await }
        });
        tokio::time::sleep(HURRIED / 2).await;
        assert!(tokens.check().expect_err("nothing was read").ends_with("away"));

        published.put(Some(&[&old]));
        tokio::time::sleep(HURRIED).await;
        assert_eq!(tokens.check(), Ok(()));
        assert_eq!(holder(&by_old), billing);

        published.put(Some(&[&new, &old]));
        tokio::time::sleep(2 * HURRIED).await;
        assert_eq!(holder(&by_new), Err(UNKNOWN), "nobody has asked for it");
        tokio::time::sleep(HURRIED).await;
        assert_eq!(holder(&by_new), billing, "then it was looked for");

        published.put(Some(&[&new]));
        tokio::time::sleep(INTERVAL + HURRIED).await;
        assert_eq!(holder(&by_old), Err(UNKNOWN), "although it was good before");

        published.put(None);
        tokio::time::sleep(GRACE - INTERVAL - HURRIED).await;
        assert_eq!((holder(&by_new), tokens.check()), (billing.clone(), Ok(())), "an outage is sat out");
        tokio::time::sleep(INTERVAL + HURRIED).await;
        assert_eq!(holder(&by_new), Err(Refusal::Unavailable), "but not for ever");
        published.put(Some(&[&new]));
        tokio::time::sleep(HURRIED).await;
        assert_eq!(holder(&by_new), billing);
        shutdown.cancel();
        keeping.await.expect("it ends");
    }

    #[test]
    fn keys_of_kinds_that_are_not_for_tokens_are_passed_over() {
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
