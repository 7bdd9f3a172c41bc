//! Each snapshot is the volume at one moment between its being asked for and its being done, on
//! every replica.

use ankole_meta::state::{State, Volume};

use super::super::world::Model;
use super::views::Views;

pub(in super::super) fn check(
    replica: &Views,
    state: &State,
    model: &Model,
    volume: &Volume,
) -> Result<(), String> {
    let id = replica.replica;
    for (snapshot, taken) in &model.snapshots {
        let layer = state.snapshots().get(snapshot).and_then(|one| one.layer);
        let (Some(layer), Some(end)) = (layer, taken.end) else {
            continue;
        };
        let sectors = replica
            .sectors(layer, volume.size)
            .ok_or_else(|| format!("replica {id}: the snapshot of layer {layer} is missing"))?;
        for (sector, bytes) in sectors {
            model
                .history
                .explain(sector, &bytes, taken.begin, end)
                .map_err(|error| format!("replica {id}: snapshot of layer {layer}: {error}"))?;
        }
    }
    Ok(())
}
