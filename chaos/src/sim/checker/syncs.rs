//! INV-10: after a failed sync a replica is faulted, and stays so.

use super::super::host::Host;

pub(in super::super) fn check(hosts: &mut [Host]) -> Result<(), String> {
    for host in hosts {
        let failed = host.disk.failed_syncs();
        if failed > host.failed_syncs && host.is_up() && host.fault().is_none() {
            return Err(format!("INV-10: {} goes on after a failed sync", host.node));
        }
    }
    Ok(())
}
