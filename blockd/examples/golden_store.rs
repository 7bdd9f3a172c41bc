//! Writes a golden store, and tells one as text: `blockd/golden/README.md`.
//!
//! ```text
//! golden_store write FOLDER     ends by SIGKILL
//! golden_store pack FOLDER
//! ```

use std::path::{Path, PathBuf};

use ankole_blockd::disk::LocalDisk;
use ankole_blockd::golden;
use ankole_blockd::golden::recipe::{SECTOR, SECTORS, STEPS, Step, bytes};
use ankole_blockd::replica::{self, Mutation, Replica, ReplicaSpec};
use ankole_blockd::store::DiskRoot;
use ankole_proto::wire::body::{OpenRequest, Revert, Seal};
use ankole_proto::{
    ClusterId, Credential, Epoch, Extent, LayerId, ReplicaId, Sequence, VolumeId, VolumeSize,
};
use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};

const EPOCH: Epoch = Epoch::from_raw(3);

/// Writes a golden store, and tells one as text.
#[derive(Debug, Parser)]
struct Cli {
    act: Act,
    /// A directory as given to blockd with --disk.
    folder: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Act {
    /// Replica 1 is closed, replica 2 is not: this process ends by SIGKILL.
    Write,
    /// Print it.
    Pack,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.act {
        Act::Write => write(&cli.folder),
        Act::Pack => {
            let disk = LocalDisk::open(&cli.folder.join("ankole"))?;
            print!("{}", golden::pack(&disk)?);
            Ok(())
        }
    }
}

fn write(folder: &Path) -> anyhow::Result<()> {
    let root = DiskRoot::open(folder)?;
    root.set_cluster(ClusterId::from_bits(0xc1))?;
    let mut closed = Store::create(&root, 1)?;
    closed.follow()?;
    closed.replica.close(EPOCH)?;
    let mut killed = Store::create(&root, 2)?;
    killed.follow()?;
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
    bail!("it outlived SIGKILL")
}

struct Store {
    replica: Replica<LocalDisk>,
    sequence: u64,
    next_layer: u64,
}

fn layer(raw: u64) -> anyhow::Result<LayerId> {
    LayerId::from_raw(raw).context("layer 0")
}

fn extent(sectors: &std::ops::Range<u64>) -> anyhow::Result<Extent> {
    let bytes = (sectors.end - sectors.start) * SECTOR;
    Extent::new(sectors.start * SECTOR, bytes).context("an extent beyond all volumes")
}

impl Store {
    fn create(root: &DiskRoot, id: u128) -> anyhow::Result<Self> {
        let spec = ReplicaSpec {
            replica: ReplicaId::from_bits(id),
            volume: VolumeId::from_bits(0xf0 + id),
            size: VolumeSize::from_bytes(SECTORS * SECTOR)?,
            base_layer: layer(1)?,
            credential: Credential::from_bytes([7; 32]),
        };
        let directory = DiskRoot::replica_dir(spec.replica);
        replica::create(root.disk(), &directory, &spec)?;
        let mut replica = Replica::load(root.disk(), &directory)?;
        replica.set_boot("the boot of the golden store");
        replica.open(&OpenRequest {
            volume: spec.volume,
            replica: spec.replica,
            epoch: EPOCH,
            size: spec.size,
            credential: spec.credential,
        })?;
        Ok(Self {
            replica,
            sequence: 0,
            next_layer: 2,
        })
    }

    fn follow(&mut self) -> anyhow::Result<()> {
        STEPS.into_iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: Step) -> anyhow::Result<()> {
        self.sequence += 1;
        let mutation = Mutation {
            sequence: Sequence::from_raw(self.sequence),
            watermark: Sequence::from_raw(self.sequence - 1),
        };
        match step {
            Step::Write(sectors, stamp) => {
                let data = bytes(sectors.clone(), |_| stamp);
                let extent = extent(&sectors)?;
                self.replica.write(EPOCH, extent, &data, mutation, false)?;
            }
            Step::Unmap(sectors) => self.replica.unmap(EPOCH, extent(&sectors)?, mutation)?,
            Step::Flush => {
                let plan = self.replica.plan_flush(EPOCH)?;
                let result = plan.run();
                self.replica.finish_flush(plan, result)?;
            }
            Step::Seal => {
                let new_head = self.new_layer()?;
                let head = self.replica.head();
                self.replica.seal(EPOCH, Seal { head, new_head })?;
            }
            Step::Revert(to) => {
                let (to, new_head) = (layer(to)?, self.new_layer()?);
                self.replica.revert(EPOCH, Revert { to, new_head })?;
            }
        }
        Ok(())
    }

    fn new_layer(&mut self) -> anyhow::Result<LayerId> {
        self.next_layer += 1;
        layer(self.next_layer - 1)
    }
}
