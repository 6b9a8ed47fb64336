//! API keys: the token that a holder sends, and the record that a store keeps.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use netagg_core::{Error, Timestamp};

use super::principal::Principal;

/// The prefix of every key. People and secret scanners recognise a key by it.
const PREFIX: &str = "netagg_";

/// The size of a secret in bytes. Guessing is not possible at this size.
const SECRET_BYTES: usize = 32;

/// The id of a key: 16 hexadecimal digits. It is not secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyId(String);

impl KeyId {
    /// The digits of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = InvalidApiKey;

    fn from_str(text: &str) -> Result<Self, InvalidApiKey> {
        let is_id = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if is_id { Ok(Self(text.to_owned())) } else { Err(InvalidApiKey) }
    }
}

impl TryFrom<String> for KeyId {
    type Error = InvalidApiKey;

    fn try_from(text: String) -> Result<Self, InvalidApiKey> {
        text.parse()
    }
}

/// The error for a text that is not a key or not the id of a key. It does not quote the text, which may be most of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is netagg_<16 hexadecimal digits>_<secret>, and its id the digits")]
pub struct InvalidApiKey;

/// The key as its holder sends it: `netagg_<id>_<secret>`. Only [`reveal`](Self::reveal) prints the secret.
pub struct ApiKeyToken {
    id: KeyId,
    secret: [u8; SECRET_BYTES],
}

impl ApiKeyToken {
    /// Generates a new key with a random id and secret.
    ///
    /// # Errors
    /// If the system provides no random numbers.
    pub fn generate() -> Result<Self, Error> {
        let (mut id, mut secret) = ([0; 8], [0; SECRET_BYTES]);
        for bytes in [&mut id[..], &mut secret[..]] {
            getrandom::fill(bytes).map_err(|error| Error::internal("system", error))?;
        }
        Ok(Self { id: KeyId(format!("{:016x}", u64::from_be_bytes(id))), secret })
    }

    /// The id of the key.
    pub fn id(&self) -> &KeyId {
        &self.id
    }

    /// The text with the secret. Give it only to the holder.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, URL_SAFE_NO_PAD.encode(self.secret))
    }

    /// Whether `text` starts like a key, valid or not.
    pub fn is_meant_by(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// The SHA-256 of the secret, which is stored instead of the secret. A slow hash for passwords is not needed: it makes
    /// guesses of likely passwords expensive, but all 2^256 secrets are equally likely.
    fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }
}

impl FromStr for ApiKeyToken {
    type Err = InvalidApiKey;

    fn from_str(text: &str) -> Result<Self, InvalidApiKey> {
        let (id, secret) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).ok_or(InvalidApiKey)?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok().and_then(|secret| secret.try_into().ok());
        Ok(Self { id: id.parse()?, secret: secret.ok_or(InvalidApiKey)? })
    }
}

impl fmt::Debug for ApiKeyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeyToken({})", self.id)
    }
}

/// The stored record of a key. It can verify the secret, but the secret cannot be computed from it.
#[derive(Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)]
pub struct ApiKey {
    /// The id of the key.
    pub id: KeyId,
    /// The SHA-256 of the secret.
    pub digest: [u8; 32],
    /// The holder of the key.
    pub principal: Principal,
    /// When the key was created.
    pub created_at: Timestamp,
    /// When the key expires. `None` means never.
    pub expires_at: Option<Timestamp>,
    /// When the key was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl ApiKey {
    /// The record of `token`, a key of `principal` that is created at `now`.
    pub fn new(token: &ApiKeyToken, principal: Principal, now: Timestamp, expires_at: Option<Timestamp>) -> Self {
        let (id, digest) = (token.id.clone(), token.digest());
        Self { id, digest, principal, created_at: now, expires_at, revoked_at: None }
    }

    /// Whether the key is valid at `now`: neither expired nor revoked.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether `token` has the secret of this key. The comparison takes the same time for every token.
    pub fn matches(&self, token: &ApiKeyToken) -> bool {
        self.digest.ct_eq(&token.digest()).into()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).field("principal", &self.principal).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_key_is_recognised_by_its_whole_secret() {
        let now: Timestamp = "2025-10-31T12:00:00Z".parse().expect("valid");
        let token = ApiKeyToken::generate().expect("random numbers");
        let key = ApiKey::new(&token, Principal::anybody(), now, None);
        let shown: ApiKeyToken = token.reveal().parse().expect("a key");
        assert_eq!(shown.id(), &key.id);
        assert!(key.matches(&shown));

        for bit in 0..256 {
            let mut secret = token.secret;
            secret[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.matches(&ApiKeyToken { id: token.id.clone(), secret }), "{bit}");
        }
        assert_ne!(ApiKeyToken::generate().expect("random numbers").reveal(), token.reveal());
    }

    #[test]
    fn an_invalid_key_is_rejected_and_not_quoted() {
        let token = ApiKeyToken::generate().expect("random numbers").reveal();
        let cut = &token[..token.len() - 1];
        let upper = token.to_uppercase();
        for text in ["", "netagg_", "netagg_0123456789abcdef", "netagg_0123456789abcdef_", "netagg__", cut, &upper] {
            assert_eq!(text.parse::<ApiKeyToken>().expect_err(text), InvalidApiKey);
        }
        assert!(format!("{token}x").parse::<ApiKeyToken>().is_err());
    }

    #[test]
    fn debug_output_has_no_secret() {
        let token = ApiKeyToken::generate().expect("random numbers");
        let secret = token.reveal().rsplit_once(token.id().as_str()).expect("an id").1.to_owned();
        let key = ApiKey::new(&token, Principal::anybody(), Timestamp::MIN, None);
        let shown = format!("{token:?} {key:?}");
        assert!(shown.contains(token.id().as_str()) && !shown.contains(&secret), "{shown}");
        assert!(!shown.contains("digest"), "{shown}");
    }

    #[test]
    fn a_key_is_valid_until_it_expires_or_is_revoked() {
        let now: Timestamp = "2025-10-31T12:00:00Z".parse().expect("valid");
        let token = ApiKeyToken::generate().expect("random numbers");
        let end = now.saturating_add(Duration::from_secs(60));
        let key = ApiKey::new(&token, Principal::anybody(), now, Some(end));
        assert!(key.is_valid_at(now) && !key.is_valid_at(end));
        assert!(!ApiKey { revoked_at: Some(now), ..key }.is_valid_at(now));
    }
}
