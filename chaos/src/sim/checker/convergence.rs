//! Once everything is healed, all replicas are equal, layer by layer and chunk by chunk.

use ankole_proto::{ChunkNumber, LayerId};

use super::super::host::Host;
use super::super::managers::Managers;

pub(in super::super) fn check(hosts: &mut [Host], managers: &Managers) -> Result<(), String> {
    let mut first: Option<(String, Vec<String>)> = None;
    for host in hosts {
        let node = host.node.to_string();
        let state = state_of(host, managers).map_err(|error| format!("{node}: {error}"))?;
        match &first {
            None => first = Some((node, state)),
            Some((other, theirs)) => {
                if let Some((a, b)) = theirs.iter().zip(&state).find(|(a, b)| a != b) {
                    return Err(format!("{other} and {node} differ: {a} against {b}"));
                }
                if theirs.len() != state.len() {
                    return Err(format!("{other} and {node} have different layers"));
                }
            }
        }
    }
    Ok(())
}

fn state_of(host: &mut Host, managers: &Managers) -> Result<Vec<String>, String> {
    let store = host.replica_mut().ok_or("is not running")?;
    if store.head() != managers.head {
        return Err(format!(
            "its head is {}, not {}",
            store.head(),
            managers.head
        ));
    }
    let epoch = store.epoch();
    let links = store.layers();
    let layers: Vec<LayerId> = links.iter().map(|link| link.layer).collect();
    let mut state = vec![format!("{links:?}")];
    for layer in layers {
        for chunk in 0..managers.size.chunks() {
            let extent = ChunkNumber::from_raw(chunk).extent_in(managers.size);
            let digest = store
                .digest(epoch, layer, extent)
                .map_err(|error| format!("layer {layer} chunk {chunk}: {error}"))?;
            state.push(format!("layer {layer} chunk {chunk} {digest:?}"));
        }
    }
    Ok(state)
}
