//! The environment variables for authentication, rate limits and encryption of the API.

mod methods;
#[cfg(feature = "services")]
mod settings;

pub use methods::open_only;
#[cfg(feature = "services")]
pub use settings::{ProtectionConfig, api_keys, keys_file};
