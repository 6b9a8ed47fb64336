//! Compiles the gRPC interface, without `protoc`: nothing has to be installed to build this crate.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use prost::Message;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(["telecom/v1/usage.proto"], ["proto"])?;
    // Server reflection answers from it.
    let out = PathBuf::from(env::var("OUT_DIR")?).join("telecom.v1.bin");
    fs::write(out, descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
