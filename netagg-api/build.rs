//! Compiles the gRPC interface without `protoc`: the build needs no installed tools.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    #[cfg(feature = "grpc")]
    compile_grpc()?;
    Ok(())
}

#[cfg(feature = "grpc")]
fn compile_grpc() -> Result<(), Box<dyn Error>> {
    use std::path::PathBuf;
    use std::{env, fs};

    use prost::Message;

    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(["telecom/v1/usage.proto"], ["proto"])?;
    // Server reflection returns these descriptors.
    fs::write(out.join("telecom.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors.clone())?;

    let server = out.join("server");
    fs::create_dir_all(&server)?;
    tonic_prost_build::configure()
        .out_dir(server)
        .build_client(false)
        .extern_path(".telecom.v1", "crate::proto")
        .extern_path(".telecom.v1.GetGlobalAggResponse", "crate::grpc::RawResponse")
        .compile_fds(descriptors)?;
    Ok(())
}
