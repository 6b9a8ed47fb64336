//! Passes the version of the Rust compiler to the programs, for the metric `netagg_build_info`.

use std::error::Error;
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    let output = Command::new(std::env::var_os("RUSTC").ok_or("cargo has not set RUSTC")?).arg("--version").output()?;
    // rustc 1.95.0 (0123456789 2026-01-01)
    let version = String::from_utf8(output.stdout)?;
    println!("cargo:rustc-env=NETAGG_RUST={}", version.split(' ').nth(1).unwrap_or("unknown"));
    Ok(())
}
