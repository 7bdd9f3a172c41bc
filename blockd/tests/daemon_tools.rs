//! The offline tools, run as an operator would.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it finds something wrong"
)]

mod daemon_support;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ankole_proto::wire::Opcode;
use ankole_proto::wire::body::Seal;
use daemon_support::{Node, REPLICA, VOLUME_BYTES, block, layer};

const BLOCK: u64 = 4096;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ankole-blockd"))
        .args(arguments)
        .output()
        .unwrap()
}

fn replica_dir(disk: &Path) -> PathBuf {
    disk.join("ankole/replicas").join(REPLICA.to_string())
}

/// A store at rest: block 1 sealed in layer 1, and changed in the head.
fn prepare(disk: &Path) {
    let node = Node::start_new(disk);
    let mut client = node.open(1);
    client.write(BLOCK, &block(1, 1));
    let seal = Seal {
        head: layer(1),
        new_head: layer(2),
    };
    let header = client.header(Opcode::Seal, 0, 0);
    client.done(header, &seal.encode());
    client.write(BLOCK, &block(1, 2));
    client.act(Opcode::Close, 0, 0);
    node.stop();
}

#[test]
fn inspect_tells_the_layers_as_json() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let output = run(&["inspect", dir.path().to_str().unwrap(), "--output", "json"]);
    assert!(output.status.success(), "{output:?}");
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found[0]["replica"], REPLICA.to_string());
    assert_eq!(found[0]["stop"], "clean");
    assert_eq!(found[0]["layers"].as_array().unwrap().len(), 2);
    assert_eq!(found[0]["layers"][0]["used_bytes"], BLOCK);
}

#[test]
fn verify_passes_a_sound_store_and_fails_one_with_a_flipped_bit() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let store = dir.path().to_str().unwrap().to_owned();
    let output = run(&["verify", &store]);
    assert!(output.status.success(), "{output:?}");
    let image = replica_dir(dir.path()).join(format!("layers/{}.img", layer(1)));
    let file = std::fs::OpenOptions::new().write(true).open(image).unwrap();
    file.write_all_at(&[0xff; 3], BLOCK + 100).unwrap();
    let output = run(&["verify", &store]);
    assert!(!output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        told.contains("DAMAGED") && told.contains("block 1 of layer"),
        "{told}"
    );
}

#[test]
fn a_store_in_use_is_not_verified() {
    let dir = tempfile::tempdir().unwrap();
    let _node = Node::start_new(dir.path());
    let output = run(&["verify", dir.path().to_str().unwrap()]);
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("stop it first"), "{told}");
}

#[test]
fn export_writes_the_volume_as_it_is_and_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let replica = replica_dir(dir.path());
    let sealed = layer(1).to_string();
    for (layer_arguments, generation) in [(vec![], 2), (vec!["--layer", sealed.as_str()], 1)] {
        let file = dir.path().join(format!("{generation}.raw"));
        let mut arguments = vec!["export", replica.to_str().unwrap()];
        arguments.extend(&layer_arguments);
        arguments.push(file.to_str().unwrap());
        let output = run(&arguments);
        assert!(output.status.success(), "{output:?}");
        let mut expected = vec![0; usize::try_from(VOLUME_BYTES).unwrap()];
        expected[4096..8192].copy_from_slice(&block(1, generation));
        assert!(std::fs::read(&file).unwrap() == expected);
        // What stands there is never overwritten.
        assert!(!run(&arguments).status.success());
        assert!(std::fs::read(&file).unwrap() == expected);
    }
}
