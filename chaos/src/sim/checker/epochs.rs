//! INV-1: the epoch that a replica obeys never shrinks, through crashes and power cuts, and no
//! request of an older engine is carried out.

use super::super::host::Host;

pub(in super::super) fn check(hosts: &mut [Host]) -> Result<(), String> {
    for host in hosts {
        if let Some(what) = &host.obeyed_older {
            return Err(format!("INV-1: {} obeyed {what}", host.node));
        }
        let before = host.greatest_epoch;
        let Some(epoch) = host.replica_mut().map(|replica| replica.epoch()) else {
            continue;
        };
        if epoch < before {
            return Err(format!(
                "INV-1: {} went back from epoch {before} to {epoch}",
                host.node
            ));
        }
        host.greatest_epoch = epoch;
    }
    Ok(())
}
