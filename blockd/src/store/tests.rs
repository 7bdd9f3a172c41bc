//! Tests of a store on several disks.

use std::fs;
use std::path::{Path, PathBuf};

use ankole_proto::{Credential, LayerId, ReplicaId, VolumeId, VolumeSize};

use super::{Creation, Store};

/// Directories for disks, which exist.
fn folders(dir: &Path) -> Vec<PathBuf> {
    let paths = ["one", "two", "three"].map(|name| dir.join(name));
    for path in &paths {
        fs::create_dir_all(path).unwrap();
    }
    paths.to_vec()
}

fn creation(store: &Store, disk: usize, replica: u128) -> Creation {
    Creation {
        replica: ReplicaId::from_bits(replica),
        volume: VolumeId::from_bits(replica + 100),
        disk: store.disks()[disk].id(),
        size: VolumeSize::from_bytes(8 << 20).unwrap(),
        credential: Credential::from_bytes([3; 32]),
        base: LayerId::from_raw(1).unwrap(),
    }
}

/// All files below a path with their contents.
fn contents(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

#[test]
fn a_renamed_or_copied_replica_is_told_with_what_to_do_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&folders(dir.path())).unwrap();
    store.create(&creation(&store, 0, 1)).unwrap();
    drop(store);
    let replicas = dir.path().join("one/ankole/replicas");
    let [own, other] = [1, 2].map(ReplicaId::from_bits);
    let (from, to) = (
        replicas.join(own.to_string()),
        replicas.join(other.to_string()),
    );
    fs::rename(&from, &to).unwrap();
    // What loading would remove.
    fs::write(to.join("layers/0000000000000009.img"), b"x").unwrap();
    let before = contents(&to);
    let store = Store::open(&folders(dir.path())).unwrap();
    assert!(store.slot(own).is_none());
    let told = &store.report()[0].replicas[0];
    assert_eq!(told.id, other.to_string());
    for part in [
        to.display().to_string(),
        format!("holds replica {own}: the directory was renamed or copied"),
        format!("give the directory the name {own}"),
    ] {
        assert!(told.message.contains(&part), "{}", told.message);
    }
    assert!(contents(&to) == before);
    drop(store);
    fs::rename(&to, &from).unwrap();
    let store = Store::open(&folders(dir.path())).unwrap();
    assert!(store.slot(own).unwrap().replica().is_some());
}
