//! Authentication and rate limits: they decide about each caller before the server parses the request.

mod api_key;
mod api_key_file;
mod api_keys;
mod client_ip;
mod credentials;
mod guard;
#[cfg(feature = "jwt")]
mod jwks;
#[cfg(feature = "jwt")]
mod jwt;
mod known_keys;
mod memory_api_keys;
mod principal;
mod protection;

mod rate_limit;
mod rate_limiter;
mod refreshing;
mod rejection;

pub use api_key::{ApiKey, ApiKeyToken, InvalidApiKey, KeyId};
pub use api_key_file::ApiKeyFile;
pub use api_keys::ApiKeys;
pub(crate) use guard::GuardLayer;
#[cfg(feature = "jwt")]
pub use jwks::{InvalidKeySetUrl, KeySet, KeySetFile, KeySetUrl};
#[cfg(feature = "jwt")]
pub use jwt::TokenIssuer;
pub use memory_api_keys::MemoryApiKeys;
pub use principal::{Forbidden, Principal, Scope, UnknownScope};
pub use protection::Protection;
pub use rate_limit::{InvalidRateLimit, RateLimit};
pub(crate) use rejection::Rejection;
