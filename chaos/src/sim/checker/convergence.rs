//! Once everything is healed, all replicas have the same layers, and the volume looks the same from
//! each of them, on every replica.

use std::collections::BTreeMap;

use ankole_proto::LayerId;

use super::super::host::Host;
use super::super::managers::Managers;
use super::views::{self, View};

pub(in super::super) fn check(hosts: &mut [Host], managers: &Managers) -> Result<(), String> {
    let mut first: Option<(String, BTreeMap<LayerId, View>)> = None;
    for host in hosts {
        let node = host.node.to_string();
        let views = views_of(host, managers).map_err(|error| format!("{node}: {error}"))?;
        match &first {
            None => first = Some((node, views)),
            Some((other, theirs)) => compare(theirs, &views)
                .map_err(|error| format!("{other} and {node} differ: {error}"))?,
        }
    }
    Ok(())
}

fn views_of(host: &mut Host, managers: &Managers) -> Result<BTreeMap<LayerId, View>, String> {
    let store = host.replica_mut().ok_or("is not running")?;
    if store.head() != managers.head {
        return Err(format!(
            "its head is {}, not {}",
            store.head(),
            managers.head
        ));
    }
    views::of(store)
}

fn compare(one: &BTreeMap<LayerId, View>, other: &BTreeMap<LayerId, View>) -> Result<(), String> {
    if !one.keys().eq(other.keys()) {
        return Err("they have different layers".to_owned());
    }
    for ((layer, one), other) in one.iter().zip(other.values()) {
        let blocks = one.keys().chain(other.keys());
        for block in blocks {
            let (one, other) = (one.get(block), other.get(block));
            let rotted = one == Some(&None) || other == Some(&None);
            if one != other && !rotted {
                return Err(format!("block {} as seen from layer {layer}", block.raw()));
            }
        }
    }
    Ok(())
}
