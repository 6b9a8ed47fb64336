//! Tests the event decoder with any bytes. The decoder must not panic. It must agree with a second, independent
//! implementation of the rules of the contract. An event that it accepts must be the same after encoding and decoding.

#![no_main]

#[path = "../../netagg-core/src/event/decode/tests/oracle.rs"]
mod oracle;

use libfuzzer_sys::fuzz_target;
use netagg_core::Event;

fuzz_target!(|bytes: &[u8]| oracle::check(bytes));
