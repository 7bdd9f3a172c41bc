//! INV-2: at the moment a mutation is acknowledged, every replica on record as in sync holds the same
//! data there. Hosts that are down are judged by [`super::losses`].

use ankole_proto::{Extent, VolumeId};
use bytes::{Bytes, BytesMut};

use super::super::fleet::Fleet;
use super::super::host::Host;

/// What they hold.
pub(in super::super) fn check(
    hosts: &mut [Host],
    fleet: &Fleet,
    volume: VolumeId,
    extent: Extent,
) -> Result<Option<Bytes>, String> {
    let in_sync = fleet.in_sync(volume);
    let mut first: Option<(String, BytesMut)> = None;
    for host in hosts {
        let node = host.node.to_string();
        let slots = host.slots.values_mut();
        for slot in slots.filter(|slot| in_sync.contains(&slot.id)) {
            if !slot.intact {
                // It lost its power, and the engine has not heard of it since.
                continue;
            }
            let Some(store) = slot.replica_mut() else {
                continue;
            };
            let (mut data, epoch) = (BytesMut::new(), store.epoch());
            if store.read(epoch, extent, &mut data).is_err() {
                // A damaged or faulted copy returns nothing, which is what is asked of it.
                continue;
            }
            match &first {
                None => first = Some((node.clone(), data)),
                Some((other, theirs)) if *theirs != data => {
                    return Err(format!("INV-2: {other} and {node} differ at {extent}"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(first.map(|(_, data)| data.freeze()))
}
