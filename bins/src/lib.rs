//! What netagg's programs share: configuration, logs, signals, the ops port, the generator and the demonstration.
//!
//! The programs are the product here; this library exists so that they stay thin, and its interface follows them. To
//! embed netagg in a service of your own, use `netagg-core` and the adapter crates.

pub mod admin;
pub mod audit;
pub mod config;
pub mod dead_letters;
pub mod demo;
pub mod descriptors;
mod env_file;
pub mod generator;
pub mod import;
pub mod keys;
mod lines;
mod logging;
mod misspelled;
pub mod ops;
mod output;
mod printable;
mod program;
pub mod protection;
pub mod rebuild;
pub mod service;
mod shutdown;
mod variables;

pub use lines::Input;
pub use logging::LogDefaults;
pub use program::{Failure, Program, arguments, run_with};
pub use shutdown::Shutdown;
pub use variables::{Problem, Variables};
