//! INV-3: when a write is acknowledged, a replica whose blockd does not run has it, or its loss is on
//! record.

use ankole_blockd::disk::sim::Fate;
use ankole_proto::{Extent, VolumeId};
use bytes::{Bytes, BytesMut};

use super::super::fleet::Fleet;
use super::super::host::Host;

/// `data`: what every in-sync replica that runs holds there.
pub(in super::super) fn check(
    hosts: &[Host],
    fleet: &Fleet,
    volume: VolumeId,
    extent: Extent,
    data: &Bytes,
) -> Result<(), String> {
    let in_sync = fleet.in_sync(volume);
    let slots = hosts.iter().flat_map(|host| host.slots.values());
    let away = slots.filter(|slot| !slot.is_up() && slot.intact && in_sync.contains(&slot.id));
    for slot in away {
        // Only its process died: its page cache is there.
        let Some(mut replica) = slot.after_crash(Fate::Kept, 0) else {
            continue;
        };
        let (mut held, epoch) = (BytesMut::new(), replica.epoch());
        if replica.read(epoch, extent, &mut held).is_ok() && held != data {
            return Err(format!(
                "INV-3: replica {} is away, lacks what is acknowledged at {extent}, and counts",
                slot.id
            ));
        }
    }
    Ok(())
}
