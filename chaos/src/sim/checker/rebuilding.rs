//! INV-9: a replica that is being rebuilt is not on record as in sync.

use ankole_blockd::replica::State;

use super::super::host::Host;
use super::super::managers::{Managers, Mode};

pub(in super::super) fn check(hosts: &mut [Host], managers: &Managers) -> Result<(), String> {
    for host in hosts {
        let (node, replica) = (&host.node, host.replica);
        if managers.mode(replica) == Some(Mode::InSync) && host.state() == Some(&State::Rebuilding)
        {
            return Err(format!("INV-9: {replica} on {node} is being rebuilt"));
        }
    }
    Ok(())
}
