//! Looking at a store without a daemon. Nothing here writes.

use std::io;
use std::path::Path;

use ankole_proto::{BLOCK_BYTES, BlockNumber, ChunkNumber, LayerId, VolumeSize};
use serde::Serialize;

use super::census::decided_above;
use super::descriptor::{Descriptor, Stop, StoredState};
use super::load::{LoadError, ScanError, file_error, read_descriptor, scan_error};
use super::rebuild::present_runs;
use super::recover::allocated_in;
use super::scrub::DAMAGES_TOLD;
use crate::disk::{Disk, DiskFile};
use crate::layer::{BLOCK, Flaw, LayerFiles, Lengths, MapRecord, PLACES, Part, file_path};

/// The most findings that are listed; all are counted.
const FINDINGS_MAX: usize = 100;

/// What a replica says of itself.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    /// Its id.
    pub replica: String,
    /// Its volume's id.
    pub volume: String,
    /// Its size.
    pub size_bytes: u64,
    /// The greatest epoch it obeys.
    pub epoch: u64,
    /// "clean" or "unclean".
    pub stop: Stop,
    /// "ready", "rebuilding" or "faulted".
    pub state: StoredState,
    /// The writable layer.
    pub head: String,
    /// Every layer, a parent before its children.
    pub layers: Vec<InspectedLayer>,
}

/// A layer of an [`Inspection`].
#[derive(Debug, Clone, Serialize)]
pub struct InspectedLayer {
    /// Its id.
    pub layer: String,
    /// What it stands on.
    pub parent: Option<String>,
    /// Blocks it holds, in bytes.
    pub used_bytes: u64,
    /// Of these, what is given back when it is merged away: blocks that the only layer on it
    /// decides itself.
    pub reclaimable_bytes: u64,
    /// Its files are those of a clone, too.
    pub shared: bool,
    /// To be merged away.
    pub removing: bool,
    /// Sums may be missing after an unclean stop.
    pub unsettled: bool,
}

/// What a verification found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verification {
    /// Layers looked at.
    pub layers: u64,
    /// Blocks compared with their sums.
    pub blocks: u64,
    /// Blocks of the head that lack their sum after an unclean stop: no damage.
    pub unsettled_blocks: u64,
    /// How much is damaged.
    pub damaged: u64,
    /// What is damaged, the first 100.
    pub findings: Vec<String>,
    /// Bad blocks among that, the first 64.
    pub damages: Vec<DamagedBlock>,
}

/// A block that does not match its checksum or cannot be read.
#[derive(Debug, Clone, Serialize)]
pub struct DamagedBlock {
    /// Which layer.
    pub layer: String,
    /// Where in the volume, bytes.
    pub offset: u64,
}

impl Verification {
    fn find(&mut self, finding: String) {
        self.damaged += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }

    fn find_block(&mut self, layer: LayerId, block: BlockNumber, flaw: Flaw) {
        if self.damages.len() < DAMAGES_TOLD {
            self.damages.push(DamagedBlock {
                layer: layer.to_string(),
                offset: block.offset(),
            });
        }
        self.find(format!("block {} of layer {layer} {flaw}", block.raw()));
    }
}

/// A layer of a store at rest.
struct StillLayer<F> {
    files: LayerFiles<F>,
    size: VolumeSize,
    /// It was being written when the daemon stopped.
    in_doubt: bool,
}

/// A layer's files; they may be longer than they are to be, when an expansion was cut short.
fn open_still<D: Disk>(
    disk: &D,
    directory: &Path,
    descriptor: &Descriptor,
    layer: LayerId,
) -> Result<LayerFiles<D::File>, LoadError> {
    let lengths = Lengths::of(descriptor.size_of(layer));
    LayerFiles::open_longer(disk, directory, layer, lengths)
        .map_err(|(part, error)| file_error(&file_path(directory, layer, part), error))
}

impl<F: DiskFile> StillLayer<F> {
    fn open<D: Disk<File = F>>(
        disk: &D,
        directory: &Path,
        descriptor: &Descriptor,
        layer: LayerId,
    ) -> Result<Self, LoadError> {
        let written = layer == descriptor.head || descriptor.state == StoredState::Rebuilding;
        Ok(Self {
            files: open_still(disk, directory, descriptor, layer)?,
            size: descriptor.size_of(layer),
            in_doubt: written && descriptor.stop == Stop::Unclean,
        })
    }

    /// The record as loading would make it.
    fn record(&self, chunk: ChunkNumber) -> Result<MapRecord, ScanError> {
        let mut record = self
            .files
            .read_record(chunk)?
            .map_err(|error| ScanError::Record(chunk, error))?;
        if self.in_doubt && !record.present.is_empty() {
            let allocated = allocated_in(&self.files, chunk, self.size)?;
            for block in 0..PLACES {
                let present = record.present.contains(block) && allocated.contains(block);
                record.present.set(block, present);
            }
        }
        Ok(record)
    }
}

/// Reads `replica.json` and the maps.
///
/// # Errors
///
/// [`LoadError`].
pub fn inspect<D: Disk>(disk: &D, directory: &Path) -> Result<Inspection, LoadError> {
    let descriptor = read_descriptor(disk, directory)?;
    let mut layers = Vec::with_capacity(descriptor.layers.len());
    for entry in &descriptor.layers {
        let layer = StillLayer::open(disk, directory, &descriptor, entry.id)?;
        let above = match &children(&descriptor, entry.id)[..] {
            [only] => Some(StillLayer::open(disk, directory, &descriptor, *only)?),
            _ => None,
        };
        let is_leaf = children(&descriptor, entry.id).is_empty();
        let (mut blocks, mut reclaimable) = (0, 0);
        for chunk in (0..layer.size.chunks()).map(ChunkNumber::from_raw) {
            let scan = |error| scan_error(directory, entry.id, error);
            let record = layer.record(chunk).map_err(scan)?;
            blocks += record.present.count() as u64;
            if let Some(above) = &above
                && !record.present.is_empty()
            {
                reclaimable += decided_above(&record, &above.record(chunk).map_err(scan)?);
            }
        }
        if is_leaf && entry.id != descriptor.head {
            reclaimable = blocks;
        }
        let links = layer
            .files
            .image
            .links()
            .map_err(|error| file_error(&file_path(directory, entry.id, Part::Image), error))?;
        layers.push(InspectedLayer {
            layer: entry.id.to_string(),
            parent: entry.parent.map(|parent| parent.to_string()),
            used_bytes: blocks * BLOCK_BYTES,
            reclaimable_bytes: reclaimable * BLOCK_BYTES,
            shared: links > 1,
            removing: entry.removing,
            unsettled: entry.unsettled,
        });
    }
    Ok(Inspection {
        replica: descriptor.replica.to_string(),
        volume: descriptor.volume.to_string(),
        size_bytes: descriptor.size.bytes(),
        epoch: descriptor.epoch.raw(),
        stop: descriptor.stop,
        state: descriptor.state,
        head: descriptor.head.to_string(),
        layers,
    })
}

/// What stands on a layer.
fn children(descriptor: &Descriptor, layer: LayerId) -> Vec<LayerId> {
    let of = |entry: &&super::descriptor::StoredLayer| entry.parent == Some(layer);
    let entries = descriptor.layers.iter().filter(of);
    entries.map(|entry| entry.id).collect()
}

/// Compares every block of every layer with its sum.
///
/// # Errors
///
/// [`LoadError`] when the replica's description cannot be read; all else is a finding.
pub fn verify<D: Disk>(disk: &D, directory: &Path) -> Result<Verification, LoadError> {
    let descriptor = read_descriptor(disk, directory)?;
    let mut found = Verification::default();
    if let StoredState::Faulted { reason } = &descriptor.state {
        found.find(format!("the replica is faulted: {reason}"));
    }
    for entry in &descriptor.layers {
        found.layers += 1;
        match StillLayer::open(disk, directory, &descriptor, entry.id) {
            Ok(mut layer) => {
                let lenient = layer.in_doubt || entry.unsettled;
                verify_layer(&mut layer, directory, lenient, &mut found);
            }
            Err(error) => found.find(error.to_string()),
        }
    }
    Ok(found)
}

fn verify_layer<F: DiskFile>(
    layer: &mut StillLayer<F>,
    directory: &Path,
    lenient: bool,
    found: &mut Verification,
) {
    let id = layer.files.layer;
    let (mut data, mut sums) = (Vec::new(), Vec::new());
    for chunk in (0..layer.size.chunks()).map(ChunkNumber::from_raw) {
        let record = match layer.record(chunk) {
            Ok(record) => record,
            Err(error) => {
                found.find(scan_error(directory, id, error).to_string());
                continue;
            }
        };
        for run in present_runs(&record.present, chunk.extent_in(layer.size)) {
            found.blocks += run.count;
            match layer.files.bad_blocks(run, &mut data, &mut sums) {
                Ok(bad) if lenient => found.unsettled_blocks += bad.len() as u64,
                Ok(bad) => bad
                    .into_iter()
                    .for_each(|(block, flaw)| found.find_block(id, block, flaw)),
                Err(error) => found.find(format!("layer {id}: chunk {}: {error}", chunk.raw())),
            }
        }
    }
}

/// Hands the volume's contents, as the head or a sealed layer has them, to `write`: the blocks that
/// hold data, in order, each verified. What is not handed on reads as zeros. The volume's size then.
///
/// # Errors
///
/// [`LoadError`], also for a damaged block (as `BadFile`) and for what `write` says (as `Io`).
pub fn export<D: Disk>(
    disk: &D,
    directory: &Path,
    layer: Option<LayerId>,
    mut write: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<VolumeSize, LoadError> {
    let descriptor = read_descriptor(disk, directory)?;
    let bad = |reason: String| LoadError::BadFile {
        file: directory.display().to_string(),
        reason,
    };
    let tree = descriptor.tree().map_err(|error| bad(error.to_string()))?;
    let top = layer.unwrap_or(descriptor.head);
    if !tree.contains(top) {
        return Err(bad(format!("it has no layer {top}")));
    }
    let mut layers = Vec::new();
    for id in tree.chain_from(top) {
        let unsettled = descriptor.layer(id).is_some_and(|layer| layer.unsettled);
        let layer = StillLayer::open(disk, directory, &descriptor, id)?;
        layers.push((unsettled || layer.in_doubt, layer));
    }
    let size = descriptor.size_of(top);
    let (mut block_data, mut sums) = ([0; BLOCK], Vec::new());
    for chunk in (0..size.chunks()).map(ChunkNumber::from_raw) {
        let mut open: Vec<_> = chunk.extent_in(size).blocks().collect();
        for (lenient, layer) in &layers {
            let id = layer.files.layer;
            let record = layer
                .record(chunk)
                .map_err(|error| scan_error(directory, id, error))?;
            let here = open.extract_if(.., |block| record.decides(block.in_chunk()));
            for block in here.filter(|block| record.present.contains(block.in_chunk())) {
                let run = crate::layer::BlockRun {
                    first: block,
                    count: 1,
                };
                let mut damaged = false;
                let io_error = |source| LoadError::Io {
                    file: directory.display().to_string(),
                    source,
                };
                layer
                    .files
                    .read_run(run, &mut block_data, &mut sums, |_, _| {
                        damaged = !lenient;
                        Ok::<_, io::Error>(())
                    })
                    .map_err(io_error)?;
                if damaged {
                    let number = block.raw();
                    return Err(bad(format!(
                        "block {number} of layer {id} does not match its checksum"
                    )));
                }
                write(block.offset(), &block_data).map_err(io_error)?;
            }
        }
    }
    Ok(size)
}
