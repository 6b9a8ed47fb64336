//! The variables of each program.

mod addresses;
#[cfg(feature = "services")]
mod services;

pub use addresses::ApiAddresses;
#[cfg(feature = "services")]
pub use services::*;
