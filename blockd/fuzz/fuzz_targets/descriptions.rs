//! A `replica.json` that was edited anywhere, its checksum made right again, in front of a real
//! store: the tools and the daemon's loading take it or refuse it with a reason, whatever size,
//! layers and state it claims.
#![no_main]

use std::path::Path;

use ankole_blockd::disk::Disk;
use ankole_blockd::disk::sim::{Fate, SimDisk};
use ankole_blockd::replica::{self, Replica, ReplicaSpec};
use ankole_proto::{Credential, LayerId, ReplicaId, VolumeId, VolumeSize};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const FILE_BYTES_MAX: usize = 1 << 20;

thread_local! {
    static STORE: SimDisk = store();
}

fn directory() -> &'static Path {
    Path::new("replica")
}

fn store() -> SimDisk {
    let disk = SimDisk::new(1 << 30);
    let spec = ReplicaSpec {
        replica: ReplicaId::from_bits(1),
        volume: VolumeId::from_bits(2),
        size: VolumeSize::from_bytes(20 * 4096).expect("a size"),
        base_layer: LayerId::from_raw(1).expect("not 0"),
        credential: Credential::from_bytes([7; 32]),
    };
    replica::create(&disk, directory(), &spec).expect("an empty disk");
    disk
}

/// Edits: place (2 bytes), bytes taken out, bytes put in, and those.
fn edit(mut text: Vec<u8>, mut edits: &[u8]) -> Vec<u8> {
    while let [low, high, out, put, rest @ ..] = edits {
        let at = usize::from(u16::from_le_bytes([*low, *high])) % (text.len() + 1);
        let end = (at + usize::from(*out)).min(text.len());
        let (new, rest) = rest.split_at(usize::from(*put).min(rest.len()));
        text.splice(at..end, new.iter().copied());
        edits = rest;
    }
    text
}

/// With the checksum that fits, if it is JSON at all.
fn sealed(text: &[u8]) -> Option<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(text).ok()?;
    let compact = serde_json::to_vec(value.get("replica")?).ok()?;
    *value.get_mut("crc32c")? = ankole_proto::crc32c(&compact).into();
    serde_json::to_vec(&value).ok()
}

fn use_store(disk: &SimDisk, text: &[u8]) {
    let path = directory().join("replica.json");
    disk.replace_file(&path, text).expect("room");
    if let Ok(found) = replica::inspect(disk, directory()) {
        assert!(!found.layers.is_empty());
    }
    let _ = replica::verify(disk, directory());
    let _ = replica::export(disk, directory(), None, |_, _| Ok(()));
    if let Ok(replica) = Replica::load(disk, directory()) {
        assert_eq!(
            replica.layers().last().map(|link| link.layer),
            Some(replica.head())
        );
    }
}

fuzz_target!(|data: &[u8]| {
    STORE.with(|store| {
        let path = directory().join("replica.json");
        let good = store.read_file(&path, FILE_BYTES_MAX).expect("it is there");
        let edited = edit(good, data);
        use_store(&store.crash(Fate::Kept, 0), &edited);
        if let Some(sealed) = sealed(&edited) {
            use_store(&store.crash(Fate::Kept, 0), &sealed);
        }
    });
});
