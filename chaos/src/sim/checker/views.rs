//! What a volume looks like from each of a replica's layers, looked through here, apart from the
//! store's own index.

use std::collections::BTreeMap;

use ankole_blockd::disk::sim::SimDisk;
use ankole_blockd::replica::{LayerError, Replica};
use ankole_meta::state::Volume;
use ankole_proto::geometry::{BLOCK_BYTES, SECTOR_BYTES};
use ankole_proto::wire::rebuild::LayerBlocks;
use ankole_proto::{BlockNumber, ChunkNumber, Extent, LayerId, ReplicaId, VolumeSize};
use bytes::Bytes;

use super::super::host::Slot;
use super::super::workload::{self, SECTOR};

/// The blocks that are not zeros; `None` for one that fails its checksum: it rotted and nobody has
/// read it since.
pub(super) type View = BTreeMap<BlockNumber, Option<Bytes>>;

/// What one replica shows.
#[derive(Debug)]
pub(in super::super) struct Views {
    pub(super) replica: ReplicaId,
    pub(super) layers: BTreeMap<LayerId, View>,
}

impl Views {
    /// Looks at a replica of a volume.
    pub(in super::super) fn of(slot: &mut Slot, volume: &Volume) -> Result<Self, String> {
        let replica = slot.id;
        let store = slot.replica_mut().ok_or("is not running")?;
        if store.head() != volume.head {
            return Err(format!("its head is {}, not {}", store.head(), volume.head));
        }
        let layers = layers_of(store)?;
        Ok(Self { replica, layers })
    }

    /// The sectors of a layer where anything was ever written to a volume of this size, but those
    /// that have rotted; nothing when there is no such layer.
    pub(super) fn sectors(
        &self,
        layer: LayerId,
        size: VolumeSize,
    ) -> Option<impl Iterator<Item = (u64, Bytes)>> {
        let view = self.layers.get(&layer)?;
        let zeros = Bytes::from_static(&[0; BLOCK]);
        let blocks = workload::written(size).flat_map(|extent| extent.blocks());
        let known = blocks.filter_map(move |block| match view.get(&block) {
            None => Some((block, zeros.clone())),
            Some(Some(data)) => Some((block, data.clone())),
            Some(None) => None,
        });
        Some(known.flat_map(|(block, data)| {
            let first = block.offset() / SECTOR_BYTES;
            let count = data.len() / SECTOR;
            let sectors = (0..count).map(move |at| data.slice(at * SECTOR..(at + 1) * SECTOR));
            (first..).zip(sectors)
        }))
    }
}

const BLOCK: usize = 4096;
const _: () = assert!(BLOCK as u64 == BLOCK_BYTES);

/// The view from every layer, sealed ones and the head. Whether a block of zeros is stored, hidden
/// or absent makes no difference.
fn layers_of(store: &mut Replica<SimDisk>) -> Result<BTreeMap<LayerId, View>, String> {
    let (epoch, size) = (store.epoch(), store.size());
    let mut views: BTreeMap<LayerId, View> = BTreeMap::new();
    // A parent comes before its children.
    for link in store.layers() {
        let layer = link.layer;
        let mut view = match link.parent {
            None => View::new(),
            Some(parent) => views
                .get(&parent)
                .cloned()
                .ok_or_else(|| format!("layer {parent} below {layer} is missing"))?,
        };
        for chunk in (0..size.chunks()).map(ChunkNumber::from_raw) {
            let extent = chunk.extent_in(size);
            match store.read_layer(epoch, layer, extent) {
                Ok(blocks) => overlay(&mut view, extent, &blocks),
                Err(LayerError::Checksum(_)) => {
                    for block in extent.blocks() {
                        match store.read_layer(epoch, layer, block.extent()) {
                            Ok(blocks) => overlay(&mut view, block.extent(), &blocks),
                            Err(LayerError::Checksum(_)) => {
                                view.insert(block, None);
                            }
                            Err(error) => return Err(format!("layer {layer}: {error}")),
                        }
                    }
                }
                Err(error) => return Err(format!("layer {layer}: {error}")),
            }
        }
        views.insert(layer, view);
    }
    Ok(views)
}

/// Puts what a layer holds of an extent over what is below.
fn overlay(view: &mut View, extent: Extent, blocks: &LayerBlocks) {
    let mut rest = blocks.data.clone();
    for block in extent.blocks() {
        if blocks.present.contains(block.in_chunk()) {
            let data = rest.split_to(BLOCK.min(rest.len()));
            if data.iter().all(|byte| *byte == 0) {
                view.remove(&block);
            } else {
                view.insert(block, Some(data));
            }
        } else if blocks.zero.contains(block.in_chunk()) {
            view.remove(&block);
        }
    }
}
