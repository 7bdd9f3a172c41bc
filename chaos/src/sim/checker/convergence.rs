//! Once everything is healed, all replicas have the same layers, and the volume looks the same from
//! each of them, on every replica.

use std::collections::BTreeMap;

use ankole_meta::state::Volume;
use ankole_proto::LayerId;

use super::super::host::Slot;
use super::views::{self, View};

pub(in super::super) fn check(slots: &mut [&mut Slot], volume: &Volume) -> Result<(), String> {
    let mut first: Option<BTreeMap<LayerId, View>> = None;
    for slot in slots {
        let id = slot.id;
        let views = views_of(slot, volume).map_err(|error| format!("replica {id}: {error}"))?;
        match &first {
            None => first = Some(views),
            Some(theirs) => compare(theirs, &views)
                .map_err(|error| format!("replica {id} and another differ: {error}"))?,
        }
    }
    Ok(())
}

fn views_of(slot: &mut Slot, volume: &Volume) -> Result<BTreeMap<LayerId, View>, String> {
    let store = slot.replica_mut().ok_or("is not running")?;
    if store.head() != volume.head {
        return Err(format!("its head is {}, not {}", store.head(), volume.head));
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
