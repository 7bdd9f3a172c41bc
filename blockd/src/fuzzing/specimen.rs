//! Stores to be damaged, and what may be read from them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ankole_proto::wire::body::{OpenRequest, Seal};
use ankole_proto::{Credential, Epoch, Extent, LayerId, ReplicaId, Sequence, VolumeId, VolumeSize};

use crate::disk::sim::{Fate, SimDisk};
use crate::golden::recipe::{self, SECTOR};
use crate::golden::{GoldenStore, unpack};
use crate::replica::{self, Mutation, Replica, ReplicaSpec};
use crate::store::DiskRoot;

pub(super) const BLOCK: u64 = 4096;
/// More than one chunk, and the last one not whole.
const BLOCKS: u64 = 700;
const DISK_BYTES: u64 = 1 << 30;
const EPOCH: Epoch = Epoch::from_raw(1);

/// What a block may hold, one of these; a block that is not listed holds zeros.
pub(super) type Contents = BTreeMap<u64, Vec<Vec<u8>>>;

/// A store, and what is known of it.
pub(super) struct Specimen {
    pub(super) disk: SimDisk,
    pub(super) directory: PathBuf,
    replica: ReplicaId,
    volume: VolumeId,
    pub(super) blocks: u64,
    /// A parent before its children, the head last.
    pub(super) layers: Vec<LayerId>,
    /// Of each layer and what is below it.
    pub(super) contents: BTreeMap<LayerId, Contents>,
    /// Blocks that the head was given: when it was not closed, damage to its files is not always
    /// told from what a stop leaves.
    pub(super) in_doubt: BTreeSet<u64>,
    /// A map that lost records is noticed: `replica.json` tells how many there are.
    pub(super) counts_records: bool,
}

pub(super) fn layer(raw: u64) -> LayerId {
    LayerId::from_raw(raw).expect("not 0")
}

pub(super) fn extent(first: u64, count: u64) -> Extent {
    Extent::new(first * BLOCK, count * BLOCK).expect("in range")
}

pub(super) fn mutation(sequence: u64) -> Mutation {
    Mutation {
        sequence: Sequence::from_raw(sequence),
        watermark: Sequence::from_raw(sequence - 1),
    }
}

impl Specimen {
    pub(super) fn head(&self) -> LayerId {
        *self.layers.last().expect("a head")
    }

    pub(super) fn request(&self, epoch: u64) -> OpenRequest {
        OpenRequest {
            volume: self.volume,
            replica: self.replica,
            epoch: Epoch::from_raw(epoch),
            size: VolumeSize::from_bytes(self.blocks * BLOCK).expect("a size"),
            credential: Credential::from_bytes([7; 32]),
        }
    }

    /// Opened by the engine of this epoch, unless something is wrong.
    pub(super) fn open(&self, disk: &SimDisk, epoch: u64) -> Option<Replica<SimDisk>> {
        let mut replica = Replica::load(disk, &self.directory).ok()?;
        replica.open(&self.request(epoch)).ok()?;
        Some(replica)
    }

    /// Whether `data` is something that the block may hold; when a power cut may have torn it, a mix of
    /// that by sectors.
    pub(super) fn admits(&self, layer: LayerId, block: u64, data: &[u8], fate: Fate) -> bool {
        let Some(allowed) = self.contents[&layer].get(&block) else {
            return data.iter().all(|byte| *byte == 0);
        };
        if fate != Fate::Torn {
            return allowed.iter().any(|one| one == data);
        }
        let sector_bytes = data.len() / 8;
        (0..8)
            .map(|sector| sector * sector_bytes..(sector + 1) * sector_bytes)
            .all(|range| {
                let sector = data.get(range.clone());
                allowed.iter().any(|one| one.get(range.clone()) == sector)
            })
    }
}

/// A replica with one engine, which writes blocks of equal bytes.
struct Writer {
    replica: Replica<SimDisk>,
    sequence: u64,
}

impl Writer {
    fn new(disk: &SimDisk, directory: &Path) -> Self {
        let spec = ReplicaSpec {
            replica: ReplicaId::from_bits(1),
            volume: VolumeId::from_bits(2),
            size: VolumeSize::from_bytes(BLOCKS * BLOCK).expect("a size"),
            base_layer: layer(1),
            credential: Credential::from_bytes([7; 32]),
        };
        replica::create(disk, directory, &spec).expect("an empty disk");
        let mut replica = Replica::load(disk, directory).expect("just made");
        let request = OpenRequest {
            volume: spec.volume,
            replica: spec.replica,
            epoch: EPOCH,
            size: spec.size,
            credential: spec.credential,
        };
        replica.open(&request).expect("it is ours");
        Self {
            replica,
            sequence: 0,
        }
    }

    fn next(&mut self) -> Mutation {
        self.sequence += 1;
        mutation(self.sequence)
    }

    fn write(&mut self, first: u64, count: u64, byte: u8) {
        let data = vec![byte; usize::try_from(count * BLOCK).expect("small")];
        let mutation = self.next();
        self.replica
            .write(EPOCH, extent(first, count), &data, mutation, false)
            .expect("room");
    }

    fn unmap(&mut self, first: u64, count: u64) {
        let mutation = self.next();
        self.replica
            .unmap(EPOCH, extent(first, count), mutation)
            .expect("unmapped");
    }

    fn seal(&mut self) {
        let seal = Seal {
            head: layer(1),
            new_head: layer(2),
        };
        self.replica.seal(EPOCH, seal).expect("a layer more");
    }

    fn flush(&mut self) {
        let plan = self.replica.plan_flush(EPOCH).expect("open");
        let result = plan.run();
        self.replica.finish_flush(plan, result).expect("synced");
    }
}

/// Blocks of equal bytes: each of these ranges holds one of these.
fn filled(ranges: &[(std::ops::Range<u64>, &[u8])]) -> Contents {
    let mut contents = Contents::new();
    for (range, bytes) in ranges {
        for block in range.clone() {
            let allowed = bytes.iter().map(|byte| vec![*byte; 4096]).collect();
            contents.insert(block, allowed);
        }
    }
    contents
}

fn specimen(disk: SimDisk, directory: PathBuf, head: Contents) -> Specimen {
    Specimen {
        disk,
        directory,
        replica: ReplicaId::from_bits(1),
        volume: VolumeId::from_bits(2),
        blocks: BLOCKS,
        layers: vec![layer(1), layer(2)],
        contents: BTreeMap::from([(layer(1), filled(&[(0..8, &[1])])), (layer(2), head)]),
        in_doubt: BTreeSet::new(),
        counts_records: true,
    }
}

/// Blocks 0..8 in a sealed layer; in the head 4..6 overwritten, 6..8 unmapped, 600..604 written.
/// Closed.
pub(super) fn closed() -> Specimen {
    let disk = SimDisk::new(DISK_BYTES);
    let directory = PathBuf::from("replica");
    let mut writer = Writer::new(&disk, &directory);
    writer.write(0, 8, 1);
    writer.seal();
    writer.write(4, 2, 2);
    writer.write(600, 4, 3);
    writer.unmap(6, 2);
    writer.replica.begin_scrub(1, 1);
    writer.replica.scrub_step(3, 1).expect("sound");
    writer.replica.save_scrub();
    writer.replica.close(EPOCH).expect("closed");
    let head = filled(&[(0..4, &[1]), (4..6, &[2]), (600..604, &[3])]);
    specimen(disk, directory, head)
}

/// Blocks 0..8 in a sealed layer; in the head 4..6 and 9 flushed, and then written over or unmapped,
/// and others written for the first time, all of which a power cut may take. Not closed.
pub(super) fn unclean() -> Specimen {
    let disk = SimDisk::new(DISK_BYTES);
    let directory = PathBuf::from("replica");
    let mut writer = Writer::new(&disk, &directory);
    writer.write(0, 8, 1);
    writer.seal();
    writer.write(4, 2, 2);
    writer.write(9, 1, 2);
    writer.write(20, 2, 2);
    writer.unmap(7, 1);
    writer.flush();
    writer.write(4, 1, 3);
    writer.unmap(5, 2);
    writer.write(5, 1, 4);
    writer.write(7, 1, 3);
    writer.unmap(20, 1);
    writer.write(600, 4, 3);
    let head = filled(&[
        (0..4, &[1]),
        (4..5, &[2, 3]),
        (5..6, &[2, 0, 4]),
        (6..7, &[1, 0]),
        (7..8, &[0, 3]),
        (9..10, &[2]),
        (20..21, &[2, 0]),
        (21..22, &[2]),
        (600..604, &[0, 3]),
    ]);
    let mut found = specimen(disk, directory, head);
    found.in_doubt = (4..8).chain([9, 20, 21]).chain(600..604).collect();
    found
}

/// What a block of a golden store holds by its stamps; `None`: zeros.
fn golden_block(stamps: &[u8], block: u64) -> Option<Vec<u8>> {
    let sectors = block * (BLOCK / SECTOR)..(block + 1) * (BLOCK / SECTOR);
    let stamp = |sector| usize::try_from(sector).map_or(0, |at: usize| stamps[at]);
    let any = sectors.clone().any(|sector| stamp(sector) != 0);
    any.then(|| recipe::bytes(sectors, stamp))
}

/// Replica 1 (closed) or 2 (killed) of a golden store.
pub(super) fn golden(store: &GoldenStore, replica: u128) -> Specimen {
    let disk = SimDisk::new(DISK_BYTES);
    unpack(store.text, &disk).expect("a golden store");
    let blocks = recipe::SECTORS / (BLOCK / SECTOR);
    let stamps = recipe::contents();
    let contents: BTreeMap<LayerId, Contents> = stamps
        .iter()
        .map(|(raw, stamps)| {
            let of_block = |block| Some((block, vec![golden_block(stamps, block)?]));
            (layer(*raw), (0..blocks).filter_map(of_block).collect())
        })
        .collect();
    let [.., below, head] = contents.keys().copied().collect::<Vec<_>>()[..] else {
        unreachable!("the recipe has several layers");
    };
    let differs = |block: &u64| contents[&below].get(block) != contents[&head].get(block);
    let killed = replica == 2;
    Specimen {
        // All of it is durable.
        disk: disk.crash(Fate::Kept, 0),
        directory: DiskRoot::replica_dir(ReplicaId::from_bits(replica)),
        replica: ReplicaId::from_bits(replica),
        volume: VolumeId::from_bits(0xf0 + replica),
        blocks,
        layers: contents.keys().copied().collect(),
        in_doubt: (0..blocks)
            .filter(|block| killed && differs(block))
            .collect(),
        contents,
        counts_records: store.format > 2,
    }
}

/// The same, closed by the present code: in the newest format.
pub(super) fn renewed(store: &GoldenStore, replica: u128) -> Specimen {
    let mut found = golden(store, replica);
    let mut opened = found.open(&found.disk, 4).expect("a golden store");
    while !matches!(
        opened.settle_step(1000).expect("sound"),
        replica::Progress::Idle
    ) {}
    opened.close(Epoch::from_raw(4)).expect("closed");
    found.in_doubt.clear();
    found.counts_records = true;
    found
}
