//! INV-7: a replica's layers form a tree with one head on top, without a cycle and within the
//! bound.

use std::collections::BTreeMap;

use ankole_proto::LayerId;
use ankole_proto::wire::body::{LayerLink, SEALED_LAYERS_MAX};

use super::super::host::Slot;

pub(in super::super) fn check(slots: &mut [&mut Slot]) -> Result<(), String> {
    for slot in slots {
        let id = slot.id;
        let Some(store) = slot.replica_mut() else {
            continue;
        };
        judge(store.head(), &store.layers())
            .map_err(|error| format!("INV-7: replica {id}: {error}"))?;
    }
    Ok(())
}

fn judge(head: LayerId, links: &[LayerLink]) -> Result<(), String> {
    let parents: BTreeMap<LayerId, Option<LayerId>> =
        links.iter().map(|link| (link.layer, link.parent)).collect();
    if parents.len() != links.len() {
        return Err("a layer is there twice".to_owned());
    }
    if links.len() > SEALED_LAYERS_MAX + 1 {
        return Err(format!("{} layers", links.len()));
    }
    if links.iter().any(|link| link.parent == Some(head)) {
        return Err(format!("the head {head} has a child"));
    }
    for link in links.iter().map(|link| link.layer).chain([head]) {
        let mut at = Some(link);
        for _ in 0..=links.len() {
            let Some(layer) = at else { break };
            at = *parents
                .get(&layer)
                .ok_or_else(|| format!("layer {layer} is missing"))?;
        }
        if at.is_some() {
            return Err(format!("layer {link} stands on itself"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(raw: u64) -> LayerId {
        LayerId::from_raw(raw).unwrap()
    }

    fn link(raw: u64, parent: Option<u64>) -> LayerLink {
        LayerLink {
            layer: layer(raw),
            parent: parent.map(layer),
        }
    }

    #[test]
    fn a_chain_with_a_branch_is_a_tree() {
        let links = [link(1, None), link(2, Some(1)), link(3, Some(1))];
        assert!(judge(layer(3), &links).is_ok());
    }

    #[test]
    fn cycles_gaps_children_of_the_head_and_long_chains_are_found() {
        let cycle = [link(1, Some(2)), link(2, Some(1)), link(3, Some(2))];
        assert!(judge(layer(3), &cycle).is_err());
        assert!(judge(layer(2), &[link(2, Some(1))]).is_err());
        assert!(judge(layer(1), &[link(1, None), link(2, Some(1))]).is_err());
        assert!(judge(layer(9), &[link(1, None)]).is_err());
        assert!(judge(layer(1), &[link(1, None), link(1, None)]).is_err());
        let long: Vec<_> = (1..=256)
            .map(|raw| link(raw, (raw > 1).then(|| raw - 1)))
            .collect();
        assert!(judge(layer(256), &long).is_err());
        assert!(judge(layer(255), &long[..255]).is_ok());
    }
}
