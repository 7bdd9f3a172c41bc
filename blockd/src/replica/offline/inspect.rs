//! What a replica says of itself: `replica.json` and the maps.

use std::path::Path;

use ankole_proto::{BLOCK_BYTES, LayerId};
use serde::Serialize;

use super::{StillLayer, map_trouble, misnamed, note};
use crate::disk::{Disk, DiskFile};
use crate::layer::{Part, file_path};
use crate::replica::census::decided_above;
use crate::replica::descriptor::{Descriptor, Stop, StoredLayer, StoredState};
use crate::replica::load::{LoadError, read_descriptor};

/// The most findings that are listed of a layer; all are counted.
const FINDINGS_MAX: usize = 10;

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
    /// What is wrong with the replica as a whole.
    pub findings: Vec<String>,
}

impl Inspection {
    /// Whether all of it could be read.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty() && self.layers.iter().all(|layer| layer.damaged == 0)
    }
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
    /// How much is wrong with its files and map records; what is counted above is the rest.
    pub damaged: u64,
    /// What is wrong, the first 10.
    pub findings: Vec<String>,
}

/// Reads `replica.json` and the maps. What is wrong with a layer is told with it, and the others are
/// read all the same.
///
/// # Errors
///
/// [`LoadError`] when the replica's description cannot be read.
pub fn inspect<D: Disk>(disk: &D, directory: &Path) -> Result<Inspection, LoadError> {
    let descriptor = read_descriptor(disk, directory)?;
    let layers = descriptor.layers.iter();
    let layers = layers
        .map(|entry| inspect_layer(disk, directory, &descriptor, entry))
        .collect();
    Ok(Inspection {
        replica: descriptor.replica.to_string(),
        volume: descriptor.volume.to_string(),
        size_bytes: descriptor.size.bytes(),
        epoch: descriptor.epoch.raw(),
        stop: descriptor.stop,
        head: descriptor.head.to_string(),
        layers,
        findings: misnamed(directory, &descriptor).into_iter().collect(),
        state: descriptor.state,
    })
}

/// Blocks of a layer.
#[derive(Default)]
struct Counted {
    held: u64,
    reclaimable: u64,
}

fn inspect_layer<D: Disk>(
    disk: &D,
    directory: &Path,
    descriptor: &Descriptor,
    entry: &StoredLayer,
) -> InspectedLayer {
    let layer = StillLayer::open(disk, directory, descriptor, entry.id);
    let (mut damaged, mut findings) = (0, Vec::new());
    let mut find = |finding| note(&mut damaged, &mut findings, FINDINGS_MAX, finding);
    layer.troubles.iter().cloned().for_each(&mut find);
    let standing = children(descriptor, entry.id);
    let above = match &standing[..] {
        [only] => Some(StillLayer::open(disk, directory, descriptor, *only)),
        _ => None,
    };
    let mut counted = count(directory, &layer, above.as_ref(), &mut find);
    if standing.is_empty() && entry.id != descriptor.head {
        counted.reclaimable = counted.held;
    }
    let links = layer
        .files
        .as_ref()
        .map_or(Ok(1), |files| files.image.links());
    let links = links.unwrap_or_else(|error| {
        let path = file_path(directory, entry.id, Part::Image);
        find(format!("{}: {error}", path.display()));
        1
    });
    InspectedLayer {
        layer: entry.id.to_string(),
        parent: entry.parent.map(|parent| parent.to_string()),
        used_bytes: counted.held * BLOCK_BYTES,
        reclaimable_bytes: counted.reclaimable * BLOCK_BYTES,
        shared: links > 1,
        removing: entry.removing,
        unsettled: entry.unsettled,
        damaged,
        findings,
    }
}

/// Counts by the records that are sound; of the layer above, the others are told with that one.
fn count<F: DiskFile>(
    directory: &Path,
    layer: &StillLayer<F>,
    above: Option<&StillLayer<F>>,
    mut find: impl FnMut(String),
) -> Counted {
    let mut counted = Counted::default();
    if layer.map.is_none() {
        return counted;
    }
    for chunk in layer.chunks() {
        let record = match layer.record(chunk) {
            Ok(record) => record,
            Err(error) => {
                find(map_trouble(directory, layer.layer, chunk, &error));
                continue;
            }
        };
        counted.held += record.present.count() as u64;
        if let Some(above) = above
            && !record.present.is_empty()
            && let Ok(above) = above.record(chunk)
        {
            counted.reclaimable += decided_above(&record, &above);
        }
    }
    counted
}

/// What stands on a layer.
fn children(descriptor: &Descriptor, layer: LayerId) -> Vec<LayerId> {
    let of = |entry: &&StoredLayer| entry.parent == Some(layer);
    let entries = descriptor.layers.iter().filter(of);
    entries.map(|entry| entry.id).collect()
}
