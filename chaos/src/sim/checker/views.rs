//! What a volume looks like from each of a replica's layers, looked through here, apart from the
//! store's own index.

use std::collections::BTreeMap;

use ankole_blockd::disk::sim::SimDisk;
use ankole_blockd::replica::{LayerError, Replica};
use ankole_proto::geometry::BLOCK_BYTES;
use ankole_proto::wire::rebuild::LayerBlocks;
use ankole_proto::{BlockNumber, ChunkNumber, Extent, LayerId};
use bytes::Bytes;

/// The blocks that are not zeros; `None` for one that fails its checksum: it rotted and nobody has
/// read it since.
pub(super) type View = BTreeMap<BlockNumber, Option<Bytes>>;

/// The view from every layer, sealed ones and the head. Whether a block of zeros is stored, hidden
/// or absent makes no difference.
pub(super) fn of(store: &mut Replica<SimDisk>) -> Result<BTreeMap<LayerId, View>, String> {
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
    let bytes = usize::try_from(BLOCK_BYTES).unwrap_or_default();
    let mut rest = blocks.data.clone();
    for block in extent.blocks() {
        if blocks.present.contains(block.in_chunk()) {
            let data = rest.split_to(bytes.min(rest.len()));
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
