//! Each snapshot is the volume at one moment between its being asked for and its being done, on
//! every replica.

use ankole_meta::state::State;
use ankole_proto::geometry::{BLOCK_BYTES, SECTOR_BYTES};

use super::super::host::Slot;
use super::super::workload::{self, SECTOR};
use super::super::world::Model;
use super::views;

pub(in super::super) fn check(slot: &mut Slot, state: &State, model: &Model) -> Result<(), String> {
    let node = format!("replica {}", slot.id);
    let store = slot.replica_mut().ok_or("a host does not run")?;
    let views = views::of(store).map_err(|error| format!("{node}: {error}"))?;
    let zeros = bytes::Bytes::from(vec![0; usize::try_from(BLOCK_BYTES).unwrap_or_default()]);
    for (id, taken) in &model.snapshots {
        let Some(layer) = state.snapshots().get(id).and_then(|one| one.layer) else {
            continue;
        };
        let Some(end) = taken.end else { continue };
        let view = views
            .get(&layer)
            .ok_or_else(|| format!("{node}: the snapshot of layer {layer} is missing"))?;
        for block in workload::written().flat_map(|extent| extent.blocks()) {
            let data = match view.get(&block) {
                None => &zeros,
                Some(Some(data)) => data,
                Some(None) => continue,
            };
            let first = block.offset() / SECTOR_BYTES;
            for (sector, bytes) in (first..).zip(data.chunks(SECTOR)) {
                model
                    .history
                    .explain(sector, bytes, taken.begin, end)
                    .map_err(|error| format!("{node}: snapshot of layer {layer}: {error}"))?;
            }
        }
    }
    Ok(())
}
