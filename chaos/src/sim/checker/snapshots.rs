//! Each snapshot is the volume at one moment between its being asked for and its being done.
//!
//! The layers are looked through here, apart from the store's own index.

use std::collections::BTreeMap;

use ankole_blockd::disk::sim::SimDisk;
use ankole_blockd::replica::Replica;
use ankole_proto::geometry::{BLOCK_BYTES, SECTOR_BYTES};
use ankole_proto::{BlockNumber, LayerId};

use super::super::history::History;
use super::super::host::Host;
use super::super::managers::Managers;
use super::super::workload;

pub(in super::super) fn check(
    host: &mut Host,
    managers: &Managers,
    history: &History,
) -> Result<(), String> {
    let store = host.replica_mut().ok_or("a host does not run")?;
    for snapshot in &managers.snapshots {
        let Some(end) = snapshot.end else { continue };
        for block in workload::written().flat_map(|extent| extent.blocks()) {
            let data = block_at(store, snapshot.layer, block)?;
            let first = block.offset() / SECTOR_BYTES;
            for (sector, bytes) in (first..).zip(data.chunks(SECTOR_BYTES as usize)) {
                history
                    .explain(sector, bytes, snapshot.begin, end)
                    .map_err(|error| format!("snapshot of layer {}: {error}", snapshot.layer))?;
            }
        }
    }
    Ok(())
}

/// A block as seen from a layer: the first layer on the way down that says anything of it.
fn block_at(
    store: &mut Replica<SimDisk>,
    layer: LayerId,
    block: BlockNumber,
) -> Result<Vec<u8>, String> {
    let parents: BTreeMap<LayerId, Option<LayerId>> = store
        .layers()
        .into_iter()
        .map(|link| (link.layer, link.parent))
        .collect();
    let epoch = store.epoch();
    let mut next = Some(layer);
    while let Some(layer) = next {
        let blocks = store
            .read_layer(epoch, layer, block.extent())
            .map_err(|error| format!("layer {layer}: {error}"))?;
        if blocks.present.contains(block.in_chunk()) {
            return Ok(blocks.data.to_vec());
        }
        if blocks.zero.contains(block.in_chunk()) {
            break;
        }
        next = *parents
            .get(&layer)
            .ok_or_else(|| format!("layer {layer} is missing"))?;
    }
    Ok(vec![0; usize::try_from(BLOCK_BYTES).unwrap_or_default()])
}
