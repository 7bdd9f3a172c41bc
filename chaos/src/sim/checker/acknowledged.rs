//! INV-2 and INV-3: at the moment a mutation is acknowledged, every replica on record as in sync
//! holds the same data there. Hosts that are down are judged when they are back, by the reads.

use ankole_proto::Extent;
use bytes::BytesMut;

use super::super::host::Host;
use super::super::managers::{Managers, Mode};

pub(in super::super) fn check(
    hosts: &mut [Host],
    managers: &Managers,
    extent: Extent,
) -> Result<(), String> {
    let mut first: Option<(String, BytesMut)> = None;
    for replica in managers.with(Mode::InSync) {
        let Some(host) = hosts.iter_mut().find(|host| host.replica == replica) else {
            continue;
        };
        if !host.intact {
            // It lost its power, and the engine has not heard of it since.
            continue;
        }
        let node = host.node.to_string();
        let Some(store) = host.replica_mut() else {
            continue;
        };
        let (mut data, epoch) = (BytesMut::new(), store.epoch());
        if store.read(epoch, extent, &mut data).is_err() {
            // A damaged or faulted copy returns nothing, which is what is asked of it.
            continue;
        }
        match &first {
            None => first = Some((node, data)),
            Some((other, theirs)) if *theirs != data => {
                return Err(format!("INV-2: {other} and {node} differ at {extent}"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
