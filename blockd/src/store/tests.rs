//! Tests of a store on several disks.

use std::fs;
use std::path::{Path, PathBuf};

use ankole_proto::{Credential, LayerId, ReplicaId, VolumeId, VolumeSize};

use super::{Creation, DiskRoot, DiskRootError, Store};

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

/// Damages one digit of a disk's marker.
fn flip(path: &Path) {
    let path = path.join("ankole/disk.json");
    let mut bytes = fs::read(&path).unwrap();
    let digit = bytes
        .windows(8)
        .position(|part| part == b"\"disk\": ")
        .unwrap()
        + 9;
    // Another digit, whichever the id begins with.
    bytes[digit] = if bytes[digit] == b'0' { b'1' } else { b'0' };
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_disk_without_a_sound_marker_is_left_out_and_told_and_the_others_serve() {
    for missing in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let paths = folders(dir.path());
        let store = Store::open(&paths).unwrap();
        for (disk, replica) in [(0, 1), (1, 2), (2, 3)] {
            store.create(&creation(&store, disk, replica)).unwrap();
        }
        let ids: Vec<_> = store.disks().iter().map(DiskRoot::id).collect();
        drop(store);
        let marker = paths[1].join("ankole/disk.json");
        if missing {
            fs::remove_file(&marker).unwrap();
        } else {
            flip(&paths[1]);
        }
        let before = contents(&paths[1]);
        let store = Store::open(&paths).unwrap();
        let found: Vec<_> = store.disks().iter().map(DiskRoot::id).collect();
        assert_eq!(found, [ids[0], ids[2]]);
        let served: Vec<_> = store.slots().iter().map(|slot| slot.id()).collect();
        assert_eq!(served, [1, 3].map(ReplicaId::from_bits));
        let reports = store.report();
        let told = &reports[0].warning;
        let wrong = if missing { "is missing" } else { "checksum" };
        for part in [
            marker.to_str().unwrap(),
            "left out",
            wrong,
            "ankole node get",
        ] {
            assert!(told.contains(part), "{told}");
        }
        assert_eq!(reports[1].warning, "");
        assert!(contents(&paths[1]) == before);
        drop(store);
        // What the message says to do.
        let text = format!(r#"{{"format":1,"disk":"{}","cluster":null}}"#, ids[1]);
        fs::write(&marker, text).unwrap();
        let store = Store::open(&paths).unwrap();
        assert_eq!(store.slots().len(), 3);
        assert_eq!(store.report()[0].warning, "");
    }
}

#[test]
fn a_disk_that_cannot_be_read_is_left_out_too() {
    let dir = tempfile::tempdir().unwrap();
    let paths = folders(dir.path());
    fs::write(paths[0].join("ankole"), b"no directory").unwrap();
    let store = Store::open(&paths).unwrap();
    assert_eq!(store.disks().len(), 2);
    let told = store.report()[0].warning.clone();
    assert!(told.contains(paths[0].to_str().unwrap()), "{told}");
}

#[test]
fn without_a_sound_disk_the_store_is_refused_with_every_reason() {
    let dir = tempfile::tempdir().unwrap();
    let paths = folders(dir.path());
    drop(Store::open(&paths).unwrap());
    for path in &paths {
        flip(path);
    }
    let error = Store::open(&paths).unwrap_err().to_string();
    assert!(error.starts_with("no disk can be used"), "{error}");
    for path in &paths {
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_disk_of_another_daemon_is_refused_and_not_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let paths = folders(dir.path());
    let _other = Store::open(&paths[1..2]).unwrap();
    let error = Store::open(&paths).unwrap_err();
    let disk = DiskRootError::InUse {
        path: paths[1].clone(),
    };
    assert_eq!(error.to_string(), disk.to_string());
}
