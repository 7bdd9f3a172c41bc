//! Each snapshot is the volume at one moment between its being asked for and its being done, on
//! every replica.

use ankole_proto::geometry::{BLOCK_BYTES, SECTOR_BYTES};

use super::super::history::History;
use super::super::host::Host;
use super::super::managers::Managers;
use super::super::workload::{self, SECTOR};
use super::views;

pub(in super::super) fn check(
    host: &mut Host,
    managers: &Managers,
    history: &History,
) -> Result<(), String> {
    let node = host.node.clone();
    let store = host.replica_mut().ok_or("a host does not run")?;
    let views = views::of(store).map_err(|error| format!("{node}: {error}"))?;
    let zeros = bytes::Bytes::from(vec![0; usize::try_from(BLOCK_BYTES).unwrap_or_default()]);
    for snapshot in &managers.snapshots {
        let Some(end) = snapshot.end else { continue };
        let layer = snapshot.layer;
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
                history
                    .explain(sector, bytes, snapshot.begin, end)
                    .map_err(|error| format!("{node}: snapshot of layer {layer}: {error}"))?;
            }
        }
    }
    Ok(())
}
