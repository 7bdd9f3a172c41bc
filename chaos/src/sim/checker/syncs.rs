//! INV-10: after a failed sync a replica is faulted, and stays so.

use super::super::host::Host;

pub(in super::super) fn check(hosts: &[Host]) -> Result<(), String> {
    for slot in hosts.iter().flat_map(|host| host.slots.values()) {
        // One that is syncing in the background learns of it a moment later.
        if slot.sync_failed && slot.is_up() && slot.is_idle() && slot.fault().is_none() {
            return Err(format!(
                "INV-10: replica {} goes on after a failed sync",
                slot.id
            ));
        }
    }
    Ok(())
}
