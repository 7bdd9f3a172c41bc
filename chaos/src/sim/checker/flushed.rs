//! INV-5: what a flush or FUA has covered is on the medium of every in-sync replica.

use ankole_blockd::disk::sim::Fate;
use ankole_meta::state::Volume;
use ankole_proto::SECTOR_BYTES;
use bytes::BytesMut;

use super::super::fleet::Fleet;
use super::super::history::Unexplained;
use super::super::host::Host;
use super::super::workload::{self, SECTOR};
use super::super::world::Model;

/// Whether a read misses what was durable.
pub(super) fn judges(found: &Unexplained) -> bool {
    matches!(found, Unexplained::Superseded(found) if found.was_durable())
}

/// Cuts the power of every in-sync replica in thought, at the moment at which a flush is answered,
/// and looks at what would be left.
pub(in super::super) fn check(
    hosts: &[Host],
    fleet: &Fleet,
    volume: &Volume,
    model: &Model,
    seed: u64,
) -> Result<(), String> {
    let in_sync = fleet.in_sync(volume.id);
    let slots = hosts.iter().flat_map(|host| host.slots.values());
    for slot in slots.filter(|slot| in_sync.contains(&slot.id)) {
        let Some(mut left) = slot.after_crash(Fate::Torn, seed) else {
            continue;
        };
        let epoch = left.epoch();
        let blocks = workload::written(volume.size).flat_map(|extent| extent.blocks());
        for extent in blocks.map(|block| block.extent()) {
            let mut data = BytesMut::new();
            if left.read(epoch, extent, &mut data).is_err() {
                // What has rotted is not returned.
                continue;
            }
            let first = extent.offset() / SECTOR_BYTES;
            for (sector, bytes) in (first..).zip(data.chunks(SECTOR)) {
                let judged = model.history.outlives_power(sector, bytes);
                judged.map_err(|found| format!("INV-5: replica {}: {found}", slot.id))?;
            }
        }
    }
    Ok(())
}
