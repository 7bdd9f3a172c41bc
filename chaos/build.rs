//! Links libiscsi, the initiator that none of our own code is part of (package libiscsi-dev).

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-lib=dylib=iscsi");
}
