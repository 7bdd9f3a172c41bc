//! INV-9: a replica that is being rebuilt is not on record as in sync.

use ankole_blockd::replica::State;

use super::super::fleet::Fleet;
use super::super::host::Host;

pub(in super::super) fn check(hosts: &[Host], fleet: &Fleet) -> Result<(), String> {
    for slot in hosts.iter().flat_map(|host| host.slots.values()) {
        if slot.state() == Some(&State::Rebuilding) && fleet.is_in_sync(slot.id) {
            return Err(format!("INV-9: replica {} is being rebuilt", slot.id));
        }
    }
    Ok(())
}
