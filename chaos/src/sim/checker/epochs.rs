//! INV-1: the epoch that a replica obeys never shrinks, through crashes and power cuts, and no
//! request of an older engine is carried out.

use super::super::host::Host;

pub(in super::super) fn check(hosts: &mut [Host]) -> Result<(), String> {
    for slot in hosts.iter_mut().flat_map(|host| host.slots.values_mut()) {
        let (id, before) = (slot.id, slot.greatest_epoch);
        if let Some(what) = &slot.obeyed_older {
            return Err(format!("INV-1: replica {id} obeyed {what}"));
        }
        let Some(epoch) = slot.replica_mut().map(|replica| replica.epoch()) else {
            continue;
        };
        if epoch < before {
            return Err(format!(
                "INV-1: replica {id} went back from epoch {before} to {epoch}"
            ));
        }
        slot.greatest_epoch = epoch;
    }
    Ok(())
}
