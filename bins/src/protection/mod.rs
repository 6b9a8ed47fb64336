//! The variables of the API's protection.

mod methods;
#[cfg(feature = "services")]
mod settings;

pub use methods::open_only;
#[cfg(feature = "services")]
pub use settings::{ProtectionConfig, api_keys, keys_file};
