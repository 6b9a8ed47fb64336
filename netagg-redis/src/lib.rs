#![doc = include_str!("../README.md")]

mod cache;
mod circuit;
mod config;
mod key;

pub use cache::RedisCache;
pub use config::{ConfigError, RedisConfig};
