//! Once everything is healed, all replicas have the same layers, and the volume looks the same from
//! each of them, on every replica.

use std::collections::BTreeMap;

use ankole_proto::LayerId;

use super::views::{View, Views};

pub(in super::super) fn check(replicas: &[Views]) -> Result<(), String> {
    for pair in replicas.windows(2) {
        let [one, other] = pair else { continue };
        compare(&one.layers, &other.layers).map_err(|error| {
            let (one, other) = (one.replica, other.replica);
            format!("replicas {one} and {other} differ: {error}")
        })?;
    }
    Ok(())
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
