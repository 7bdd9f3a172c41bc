//! Every block of a replica against its sum.

use std::path::Path;

use ankole_proto::{BlockNumber, LayerId};
use serde::Serialize;

use super::{StillLayer, map_trouble, misnamed, note};
use crate::disk::{Disk, DiskFile};
use crate::layer::Flaw;
use crate::replica::DAMAGES_TOLD;
use crate::replica::descriptor::StoredState;
use crate::replica::load::{LoadError, read_descriptor};
use crate::replica::rebuild::present_runs;

/// The most findings that are listed; all are counted.
const FINDINGS_MAX: usize = 100;

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
        note(&mut self.damaged, &mut self.findings, FINDINGS_MAX, finding);
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

/// Compares every block of every layer with its sum.
///
/// # Errors
///
/// [`LoadError`] when the replica's description cannot be read; all else is a finding.
pub fn verify<D: Disk>(disk: &D, directory: &Path) -> Result<Verification, LoadError> {
    let descriptor = read_descriptor(disk, directory)?;
    let mut found = Verification::default();
    if let Some(finding) = misnamed(directory, &descriptor) {
        found.find(finding);
    }
    if let StoredState::Faulted { reason } = &descriptor.state {
        found.find(format!("the replica is faulted: {reason}"));
    }
    for entry in &descriptor.layers {
        found.layers += 1;
        let layer = StillLayer::open(disk, directory, &descriptor, entry.id);
        verify_layer(&layer, directory, &mut found);
    }
    Ok(found)
}

fn verify_layer<F: DiskFile>(layer: &StillLayer<F>, directory: &Path, found: &mut Verification) {
    let id = layer.layer;
    for trouble in &layer.troubles {
        found.find(trouble.clone());
    }
    if layer.map.is_none() {
        return;
    }
    let (mut data, mut sums) = (Vec::new(), Vec::new());
    for chunk in layer.chunks() {
        let record = match layer.record(chunk) {
            Ok(record) => record,
            Err(error) => {
                found.find(map_trouble(directory, id, chunk, &error));
                continue;
            }
        };
        let Some(files) = &layer.files else {
            continue;
        };
        for run in present_runs(&record.present, chunk.extent_in(layer.size)) {
            found.blocks += run.count;
            match files.bad_blocks(run, &mut data, &mut sums) {
                Ok(bad) if layer.lenient => found.unsettled_blocks += bad.len() as u64,
                Ok(bad) => bad
                    .into_iter()
                    .for_each(|(block, flaw)| found.find_block(id, block, flaw)),
                Err(error) => found.find(format!("layer {id}: chunk {}: {error}", chunk.raw())),
            }
        }
    }
}
