//! The programs of netagg: their settings, their wiring, and their output.
//!
//! The programs are the product here. This library exists so that the programs stay thin, and its interface follows the
//! programs. To embed netagg in a service of your own, use `netagg-core` and the adapter crates.

// The demonstration uses only a part of each module.
#![cfg_attr(not(feature = "services"), allow(dead_code, unused_imports))]

#[cfg(feature = "services")]
mod admin;
#[cfg(feature = "services")]
mod arguments;
#[cfg(feature = "services")]
mod audit;
pub mod cli;
pub mod config;
#[cfg(feature = "services")]
mod dead_letters;
mod demo;
#[cfg(feature = "services")]
pub mod generator;
#[cfg(feature = "services")]
mod import;
mod input;
#[cfg(feature = "services")]
mod keys;
#[cfg(feature = "services")]
pub mod ops;
pub mod process;
mod progress;
pub mod protection;
#[cfg(feature = "services")]
mod rebuild;
mod rejected_lines;
pub mod reserved_descriptors;
mod run_program;
#[cfg(feature = "services")]
pub mod runtime;
mod tables;
#[cfg(feature = "services")]
pub mod traces;

pub use process::Failure;
pub use run_program::program;
