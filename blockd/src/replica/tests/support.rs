//! A replica on a simulated disk, with short calls.

use std::path::Path;

use ankole_proto::wire::body::{Expand, OpenRequest, Opened, Revert, Seal};
use ankole_proto::{
    BlockNumber, Credential, Epoch, Extent, LayerId, ReplicaId, Sequence, VolumeId, VolumeSize,
};
use bytes::BytesMut;
use proptest::prelude::ProptestConfig;

use crate::disk::Disk;
use crate::disk::sim::SimDisk;
use crate::replica::{DataError, Mutation, Progress, Replica, ReplicaSpec, TreeError, create};

pub(super) const DIRECTORY: &str = "replica";
pub(super) const BLOCK: u64 = 4096;
pub(super) const CAPACITY: u64 = 1 << 30;

/// At least so many cases of a property; `PROPTEST_CASES` asks for more.
pub(super) fn cases(least: u32) -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig {
        cases: asked.cases.max(least),
        ..asked
    }
}

/// At least so many sequences that take long each; as many times more as `PROPTEST_CASES` asks for.
pub(super) fn sequences(least: u64) -> u64 {
    least * (u64::from(ProptestConfig::default().cases) / 5000).max(1)
}

pub(super) fn directory() -> &'static Path {
    Path::new(DIRECTORY)
}

pub(super) fn layer(raw: u64) -> LayerId {
    LayerId::from_raw(raw).unwrap()
}

pub(super) fn spec(blocks: u64) -> ReplicaSpec {
    ReplicaSpec {
        replica: ReplicaId::from_bits(1),
        volume: VolumeId::from_bits(2),
        size: VolumeSize::from_bytes(blocks * BLOCK).unwrap(),
        base_layer: layer(1),
        credential: Credential::from_bytes([7; 32]),
    }
}

pub(super) fn open_request(blocks: u64, epoch: u64) -> OpenRequest {
    Place::Original.open_request(blocks, epoch)
}

/// Which replica of a disk: the one of [`spec`], or a clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Original,
    Clone,
}

impl Place {
    pub(super) fn directory(self) -> &'static Path {
        match self {
            Self::Original => directory(),
            Self::Clone => Path::new("clone"),
        }
    }

    pub(super) fn spec(self, blocks: u64) -> ReplicaSpec {
        match self {
            Self::Original => spec(blocks),
            Self::Clone => ReplicaSpec {
                replica: ReplicaId::from_bits(11),
                volume: VolumeId::from_bits(12),
                credential: Credential::from_bytes([17; 32]),
                ..spec(blocks)
            },
        }
    }

    pub(super) fn open_request(self, blocks: u64, epoch: u64) -> OpenRequest {
        let spec = self.spec(blocks);
        OpenRequest {
            volume: spec.volume,
            replica: spec.replica,
            epoch: Epoch::from_raw(epoch),
            size: spec.size,
            credential: spec.credential,
        }
    }
}

/// A replica and the engine that uses it.
pub(super) struct Rig<D: Disk> {
    pub(super) place: Place,
    pub(super) replica: Replica<D>,
    pub(super) blocks: u64,
    pub(super) epoch: Epoch,
    pub(super) sequence: u64,
}

pub(super) fn new_disk(blocks: u64) -> SimDisk {
    let disk = SimDisk::new(CAPACITY);
    create(&disk, directory(), &spec(blocks)).unwrap();
    disk
}

impl Rig<SimDisk> {
    pub(super) fn new(blocks: u64) -> (SimDisk, Self) {
        let disk = new_disk(blocks);
        let rig = Self::load(&disk, blocks, 1);
        (disk, rig)
    }
}

impl<D: Disk> Rig<D> {
    pub(super) fn load(disk: &D, blocks: u64, epoch: u64) -> Self {
        Self::load_at(disk, Place::Original, blocks, epoch)
    }

    pub(super) fn load_at(disk: &D, place: Place, blocks: u64, epoch: u64) -> Self {
        let replica = Replica::load(disk, place.directory()).unwrap();
        let mut rig = Self {
            place,
            blocks: blocks.max(replica.size().blocks()),
            replica,
            epoch: Epoch::from_raw(epoch),
            sequence: 0,
        };
        rig.open();
        rig
    }

    pub(super) fn open(&mut self) -> Opened {
        let request = self.place.open_request(self.blocks, self.epoch.raw());
        self.replica.open(&request).unwrap()
    }

    pub(super) fn mutation(&mut self) -> Mutation {
        self.sequence += 1;
        Mutation {
            sequence: Sequence::from_raw(self.sequence),
            watermark: Sequence::from_raw(self.sequence - 1),
        }
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), DataError> {
        let mutation = self.mutation();
        let extent = Extent::new(offset, data.len() as u64).unwrap();
        self.replica
            .write(self.epoch, extent, data, mutation, false)
    }

    pub(super) fn unmap(&mut self, offset: u64, bytes: u64) -> Result<(), DataError> {
        let mutation = self.mutation();
        let extent = Extent::new(offset, bytes).unwrap();
        self.replica.unmap(self.epoch, extent, mutation)
    }

    pub(super) fn read(&mut self, offset: u64, bytes: u64) -> Result<Vec<u8>, DataError> {
        let mut out = BytesMut::new();
        let extent = Extent::new(offset, bytes).unwrap();
        self.replica.read(self.epoch, extent, &mut out)?;
        Ok(out.to_vec())
    }

    pub(super) fn read_all(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for first in (0..self.blocks).step_by(512) {
            let bytes = (self.blocks - first).min(512) * BLOCK;
            out.extend(self.read(first * BLOCK, bytes).unwrap());
        }
        // Many of their sums are in memory now, and so one block is read in another way.
        for (block, wanted) in (0..self.blocks).zip(out.chunks(4096)) {
            self.check_known(BlockNumber::from_raw(block));
            assert!(
                self.read(block * BLOCK, BLOCK).unwrap() == wanted,
                "block {block} alone"
            );
        }
        out
    }

    /// What is known of a block in memory names the slot that the index names.
    fn check_known(&mut self, block: BlockNumber) {
        if let Some((slot, _)) = self.replica.newest(block) {
            assert_eq!(slot, self.replica.index.slot_of(block), "{block:?}");
        }
    }

    pub(super) fn flush(&mut self) -> Result<(), DataError> {
        let plan = self.replica.plan_flush(self.epoch)?;
        let result = plan.run();
        self.replica.finish_flush(plan, result)
    }

    pub(super) fn expand(&mut self, blocks: u64) -> Result<(), TreeError> {
        let size = VolumeSize::from_bytes(blocks * BLOCK).unwrap();
        self.replica.expand(self.epoch, Expand { size })?;
        self.blocks = self.replica.size().blocks();
        Ok(())
    }

    pub(super) fn seal(&mut self, new_head: u64) -> Result<(), TreeError> {
        let head = self.replica.head();
        let new_head = layer(new_head);
        self.replica.seal(self.epoch, Seal { head, new_head })
    }

    pub(super) fn revert(&mut self, to: LayerId, new_head: u64) -> Result<(), TreeError> {
        let new_head = layer(new_head);
        self.replica.revert(self.epoch, Revert { to, new_head })
    }

    /// One step of merging with its sync; whether there was anything to do.
    pub(super) fn merge_step(&mut self) -> bool {
        match self.replica.merge_step(3).unwrap() {
            Progress::Idle => false,
            Progress::Working { .. } => true,
            Progress::Sync(plan) => {
                let result = plan.run();
                self.replica.finish_flush(plan, result).unwrap();
                true
            }
        }
    }

    pub(super) fn merge_all(&mut self) {
        while self.merge_step() {}
    }
}
