//! What netagg's programs share: configuration, logs, signals, the ops port, the generator and the demonstration.
//!
//! The programs are the product here; this library exists so that they stay thin, and its interface follows them. To
//! embed netagg in a service of your own, use `netagg-core` and the adapter crates.

// The demonstration uses a part of everything.
#![cfg_attr(not(feature = "services"), allow(dead_code, unused_imports))]

#[cfg(feature = "services")]
pub mod admin;
#[cfg(feature = "services")]
pub mod audit;
pub mod config;
#[cfg(feature = "services")]
pub mod dead_letters;
pub mod demo;
pub mod descriptors;
mod env_file;
mod failure;
pub mod generator;
#[cfg(feature = "services")]
pub mod import;
mod input;
#[cfg(feature = "services")]
pub mod keys;
mod logging;
mod misspelled;
#[cfg(feature = "services")]
pub mod ops;
mod output;
mod printable;
mod program;
pub mod protection;
#[cfg(feature = "services")]
pub mod rebuild;
mod rejected;
#[cfg(feature = "services")]
pub mod service;
mod shutdown;
mod variables;

pub use failure::Failure;
pub use input::Input;
pub use logging::LogDefaults;
pub use program::{Program, arguments, run_with};
pub use shutdown::Shutdown;
pub use variables::{Problem, Variables};
