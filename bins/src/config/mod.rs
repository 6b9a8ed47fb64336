//! The variables of each program.

mod addresses;
#[cfg(feature = "services")]
mod names;
#[cfg(feature = "services")]
mod services;

pub use addresses::ApiAddresses;
#[cfg(feature = "services")]
pub use names::NAMES;
#[cfg(feature = "services")]
pub use services::*;

/// The demonstration alone gives no advice about variables.
#[cfg(not(feature = "services"))]
pub const NAMES: crate::process::VariableNames = crate::process::VariableNames::NONE;

/// Declares the variables of all commands, for the help.
#[cfg(not(feature = "services"))]
pub(crate) fn declare_all_of_commands(variables: &mut crate::process::Variables) {
    ApiAddresses::read(variables);
}
