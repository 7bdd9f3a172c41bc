//! What each daemon is told: a function of the agreed state alone.
//!
//! The revision of a blockd's or an agent's orders is a digest of their content, so it changes
//! exactly when they do. That of an engine's orders is a log index, because an engine ignores what
//! is older than what it has seen.

use std::collections::BTreeSet;

use ankole_proto::rpc::v1 as rpc;
use ankole_proto::{LayerId, NodeName};
use prost::Message;

use super::REBUILDS_PER_NODE_MAX;
use crate::state::{
    Chap, GroupStage, NodeOnRecord, Phase, Replica, ReplicaMode, SnapshotState, State, Task,
    TaskKind, Volume, WriteCache, iqn, record,
};

/// What the blockd of a node is to have.
pub fn blockd_orders(state: &State, node: &NodeName) -> rpc::BlockdOrders {
    let mut orders = rpc::BlockdOrders {
        cluster_id: cluster_id(state),
        ..Default::default()
    };
    for volume in state.volumes().values() {
        let removable: Vec<String> = removable_layers(state, volume)
            .iter()
            .map(ToString::to_string)
            .collect();
        for (id, replica) in volume.replicas.iter().filter(|(_, one)| one.node == *node) {
            match replica.mode {
                // An engine without target may still have it open.
                ReplicaMode::Deleting if volume.worker.is_some() => {}
                ReplicaMode::Deleting => orders.delete_replicas.push(id.to_string()),
                mode => {
                    let create = mode == ReplicaMode::Creating;
                    let merges = mode == ReplicaMode::InSync;
                    orders.replicas.push(rpc::ReplicaOrder {
                        id: id.to_string(),
                        volume_id: volume.id.to_string(),
                        disk_id: replica.disk.to_string(),
                        size_bytes: volume.size.bytes(),
                        base_layer: volume.head.to_string(),
                        credential: volume.credential.as_bytes().to_vec(),
                        create,
                        remove_layers: if merges {
                            removable.clone()
                        } else {
                            Vec::new()
                        },
                        // One that is not in sync is compared with its peers anyway.
                        scrub_request: if merges { volume.scrub.request } else { 0 },
                        clone: clone_source(volume, replica).filter(|_| create),
                    });
                }
            }
        }
    }
    let doomed = state
        .doomed()
        .iter()
        .filter(|(_, doomed)| doomed.node == *node);
    orders
        .delete_replicas
        .extend(doomed.map(|(id, _)| id.to_string()));
    orders.revision = digest(&orders.encode_to_vec());
    orders
}

/// The layers that replicas can merge away now: those of deleted snapshots, and those that a clone
/// was born with and that no other volume has any more. None while a replica is being
/// rebuilt: a merge at the source would move blocks past what the rebuild copies (INV-6). A layer
/// with several children waits until one is left.
pub fn removable_layers(state: &State, volume: &Volume) -> Vec<LayerId> {
    if volume.in_mode(ReplicaMode::Rebuilding).next().is_some() {
        return Vec::new();
    }
    let shared = layers_being_shared(state, volume);
    let deleting = state
        .snapshots_of(volume.id)
        .filter(|one| one.state == SnapshotState::Deleting);
    let layers = deleting.filter_map(|snapshot| snapshot.layer);
    layers
        .chain(volume.nameless_layers(state))
        .filter(|layer| volume.children(*layer).count() <= 1 && !shared.contains(layer))
        .collect()
}

/// The layers that clones which are being created are to share: they stay as they are until then.
fn layers_being_shared(state: &State, volume: &Volume) -> BTreeSet<LayerId> {
    let clones = state.volumes().values();
    let clones = clones.filter(|one| one.phase == Phase::Creating);
    let origins = clones
        .filter_map(|clone| clone.origin)
        .filter(|origin| origin.volume == volume.id);
    origins
        .flat_map(|origin| volume.chain(origin.layer).into_keys())
        .collect()
}

/// What a replica of a clone is to begin as.
fn clone_source(volume: &Volume, replica: &Replica) -> Option<rpc::CloneSource> {
    Some(rpc::CloneSource {
        replica_id: replica.source?.to_string(),
        layer: volume.origin?.layer.to_string(),
    })
}

/// What the agent of a node is to run.
pub fn agent_orders(state: &State, node: &NodeName) -> rpc::AgentOrders {
    let wanted = state.volumes().values().filter_map(|volume| {
        let (_, target) = volume
            .wanted_engine()
            .filter(|(wanted, _)| *wanted == node)?;
        Some(rpc::EngineOrder {
            volume_id: volume.id.to_string(),
            volume_name: volume.name.clone(),
            epoch: volume.epoch.raw(),
            port: if target { volume.port.into() } else { 0 },
            iqn: iqn(volume.id),
            without_target: !target,
            replace_through_epoch: volume.restart_epoch.raw(),
        })
    });
    let engines = wanted.collect();
    let mut orders = rpc::AgentOrders {
        revision: 0,
        cluster_id: cluster_id(state),
        engines,
    };
    orders.revision = digest(&orders.encode_to_vec());
    orders
}

/// What the engine of a volume is to know.
pub fn engine_orders(state: &State, volume: &Volume) -> rpc::EngineOrders {
    let counts = |mode| matches!(mode, ReplicaMode::InSync | ReplicaMode::Rebuilding);
    let members = volume
        .replicas
        .iter()
        .filter(|(_, replica)| counts(replica.mode));
    let reservations = state.reservations().get(&volume.id);
    let mut revision = volume
        .revision
        .max(reservations.map_or(0, |one| one.revision));
    let mut replicas = Vec::new();
    for (id, replica) in members {
        let node = state.nodes().get(&replica.node);
        revision = revision.max(node.map_or(0, |node| node.revision));
        replicas.push(rpc::ReplicaOfVolume {
            id: id.to_string(),
            node: replica.node.to_string(),
            address: text_of(node, |node| &node.block_address),
            socket: text_of(node, |node| &node.block_socket),
            mode: match replica.mode {
                ReplicaMode::InSync => rpc::ReplicaMode::InSync.into(),
                _ => rpc::ReplicaMode::Rebuilding.into(),
            },
            damages: record::damages_to(&replica.wear.damages),
            rebuild_bytes_per_second: rebuild_rate(volume, node),
            independent: replica.independent,
        });
    }
    rpc::EngineOrders {
        revision,
        volume_id: volume.id.to_string(),
        epoch: volume.epoch.raw(),
        size_bytes: volume.size.bytes(),
        head_layer: volume.head.to_string(),
        replicas,
        credential: volume.credential.as_bytes().to_vec(),
        tasks: first_task(state, volume).into_iter().collect(),
        volume_name: volume.name.clone(),
        iqn: iqn(volume.id),
        write_cache: match volume.write_cache {
            WriteCache::On => rpc::WriteCache::On.into(),
            WriteCache::Off => rpc::WriteCache::Off.into(),
        },
        chap: volume.chap.as_ref().map(Chap::to_message),
        reservations: reservations
            .map(|one| one.bytes.clone())
            .unwrap_or_default(),
        comparison_request: volume.wanted_comparison().unwrap_or_default(),
    }
}

/// What the rebuild of a replica there may copy; 0: no limit. As no more than so many run on a node
/// at a time, each has its share of what the node allows, and all together keep to it.
fn rebuild_rate(volume: &Volume, node: Option<&NodeOnRecord>) -> u64 {
    let allowed = node.map_or(0, |node| node.rebuild_bytes_per_second);
    let share = allowed.div_ceil(REBUILDS_PER_NODE_MAX as u64);
    let limits = [volume.rebuild_bytes_per_second, share];
    limits
        .into_iter()
        .filter(|limit| *limit > 0)
        .min()
        .unwrap_or(0)
}

fn text_of(node: Option<&NodeOnRecord>, field: impl Fn(&NodeOnRecord) -> &String) -> String {
    node.map(|node| field(node).clone()).unwrap_or_default()
}

/// One task at a time: which head the next one seals depends on the outcome of this one.
fn first_task(state: &State, volume: &Volume) -> Option<rpc::EngineTask> {
    let Task { id, kind } = volume.tasks.front().copied()?;
    let group = kind
        .snapshot()
        .and_then(|id| state.snapshots().get(&id)?.group)
        .and_then(|id| state.groups().get(&id))
        .filter(|_| matches!(kind, TaskKind::Seal { .. }));
    let stage = group.map(|group| &group.stage);
    // Once released it stays until an engine has told: replicas may have the new head.
    let released = matches!(stage, Some(GroupStage::Release | GroupStage::Undone { .. }));
    let works = matches!(volume.phase, Phase::Attached(_) | Phase::Detached);
    if !(works || released) || stage == Some(&GroupStage::Gather) {
        return None;
    }
    let task = match kind {
        TaskKind::Seal { snapshot, new_head } => rpc::engine_task::Task::Seal(rpc::SealTask {
            snapshot_id: snapshot.to_string(),
            head_layer: volume.head.to_string(),
            new_head_layer: new_head.to_string(),
            group: group.map(|group| rpc::GroupSeal {
                group_id: group.id.to_string(),
                stage: if released {
                    rpc::GroupStage::Release.into()
                } else {
                    rpc::GroupStage::Hold.into()
                },
            }),
        }),
        TaskKind::Expand { size } => rpc::engine_task::Task::Expand(rpc::ExpandTask {
            size_bytes: size.bytes(),
        }),
        TaskKind::Revert { snapshot, new_head } => {
            rpc::engine_task::Task::Revert(rpc::RevertTask {
                to_layer: state.snapshots().get(&snapshot)?.layer?.to_string(),
                new_head_layer: new_head.to_string(),
            })
        }
    };
    Some(rpc::EngineTask {
        id,
        task: Some(task),
    })
}

fn cluster_id(state: &State) -> String {
    state
        .cluster_id()
        .map(|id| id.to_string())
        .unwrap_or_default()
}

/// FNV-1a with 64 bits, never 0, which stands for "no orders seen".
fn digest(content: &[u8]) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = content.iter().fold(BASIS, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    });
    hash.max(1)
}
