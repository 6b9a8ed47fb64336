//! Whatever the bytes: the decoder doesn't panic, agrees with the contract's rules said a second time, and what it takes
//! survives its encoding.

#![no_main]

#[path = "../../netagg-core/src/event/decode/tests/oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use netagg_core::Event;

fuzz_target!(|bytes: &[u8]| oracle::check(bytes));
