//! The offline tools, run as an operator would.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where it finds something wrong"
)]

mod daemon_support;

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ankole_proto::wire::Opcode;
use ankole_proto::wire::body::Seal;
use daemon_support::{Node, REPLICA, VOLUME_BYTES, block, layer};

const BLOCK: u64 = 4096;

/// Flips bits of block 1 in the sealed layer.
fn damage_block(disk: &Path) {
    let image = replica_dir(disk).join(format!("layers/{}.img", layer(1)));
    let file = std::fs::OpenOptions::new().write(true).open(image).unwrap();
    file.write_all_at(&[0xff; 3], BLOCK + 100).unwrap();
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

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
    damage_block(dir.path());
    let output = run(&["verify", &store]);
    assert!(!output.status.success(), "{output:?}");
    let told = stdout(&output);
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

#[test]
fn export_keeps_what_it_could_read_only_when_it_is_told_to_skip_damage() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    damage_block(dir.path());
    let replica = replica_dir(dir.path());
    let file = dir.path().join("out.raw");
    let sealed = layer(1).to_string();
    let mut arguments = vec!["export", replica.to_str().unwrap(), file.to_str().unwrap()];
    arguments.extend(["--layer", &sealed]);
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("--skip-damaged"), "{output:?}");
    assert!(!file.exists());
    arguments.push("--skip-damaged");
    let output = run(&arguments);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let told = stdout(&output);
    let range = format!("unreadable: layer {sealed} offset 4096 length 4096");
    assert!(
        told.contains(&range) && told.contains("in all: 4096 bytes in 1 ranges"),
        "{told}"
    );
    assert!(
        stderr(&output).contains("NOT the whole volume"),
        "{output:?}"
    );
    let zeros = vec![0; usize::try_from(VOLUME_BYTES).unwrap()];
    assert!(std::fs::read(&file).unwrap() == zeros);
}

#[test]
fn inspect_goes_on_behind_a_file_that_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let map = format!("layers/{}.map", layer(1));
    std::fs::remove_file(replica_dir(dir.path()).join(&map)).unwrap();
    let store = dir.path().to_str().unwrap();
    let output = run(&["inspect", store]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = stdout(&output);
    assert!(told.contains(&map) && told.contains("DAMAGED"), "{told}");
    let head = format!("layer   {} on {}", layer(2), layer(1));
    assert!(told.contains(&head), "{told}");
    assert!(
        stderr(&output).contains("export --skip-damaged"),
        "{output:?}"
    );
    let output = run(&["inspect", store, "--output", "json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found[0]["layers"][0]["damaged"], 1);
    assert_eq!(found[0]["layers"][1]["used_bytes"], BLOCK);
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Lets everybody read all below a path, and these write there.
fn set_modes(path: &Path, writers: u32) {
    if !path.is_dir() {
        return set_mode(path, 0o444 | writers);
    }
    for entry in std::fs::read_dir(path).unwrap() {
        set_modes(&entry.unwrap().path(), writers);
    }
    set_mode(path, 0o555 | writers);
}

#[test]
fn the_tools_need_a_store_for_reading_only() {
    const NOBODY: u32 = 65534;
    let dir = tempfile::tempdir().unwrap();
    set_mode(dir.path(), 0o755);
    let (disk, out) = (dir.path().join("disk"), dir.path().join("out"));
    for folder in [&disk, &out] {
        std::fs::create_dir(folder).unwrap();
    }
    set_mode(&out, 0o777);
    prepare(&disk);
    set_modes(&disk, 0);
    let lock = disk.join("ankole/lock");
    let is_superuser = std::fs::OpenOptions::new().write(true).open(&lock).is_ok();
    let program = dir.path().join("ankole-blockd");
    std::fs::copy(env!("CARGO_BIN_EXE_ankole-blockd"), &program).unwrap();
    let run_as_reader = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        if is_superuser {
            // Modes do not stop the superuser, so somebody else looks.
            command.uid(NOBODY).gid(NOBODY);
        }
        command.args(arguments).output().unwrap()
    };
    let (replica, file) = (replica_dir(&disk), out.join("out.raw"));
    let (store, file_name) = (disk.to_str().unwrap(), file.to_str().unwrap());
    for arguments in [
        vec!["inspect", store],
        vec!["verify", store],
        vec!["export", replica.to_str().unwrap(), file_name],
    ] {
        let output = run_as_reader(&arguments);
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(std::fs::read(&file).unwrap()[4096..8192], block(1, 2));
    // A daemon keeps them out as ever.
    let held = std::fs::File::open(&lock).unwrap();
    held.lock().unwrap();
    let output = run_as_reader(&["verify", store]);
    assert!(stderr(&output).contains("stop it first"), "{output:?}");
    // So that it can be removed.
    set_modes(&disk, 0o200);
}
