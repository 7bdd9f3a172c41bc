//! Compiles the gRPC definitions, without a protoc on the machine.

use std::path::Path;

const FILES: [&str; 5] = [
    "ankole/v1/model.proto",
    "ankole/v1/admin.proto",
    "ankole/v1/fleet.proto",
    "ankole/v1/log.proto",
    "ankole/v1/raft.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let present = FILES
        .iter()
        .filter(|file| Path::new("proto").join(file).exists());
    let descriptors = protox::compile(present, ["proto"])?;
    // Its secrets are shown to nobody: `src/rpc.rs` has the `Debug` that says so.
    tonic_prost_build::configure()
        .skip_debug(["ankole.v1.Chap"])
        .compile_fds(descriptors)?;
    Ok(())
}
