//! Volumes as they are told.

use ankole_proto::rpc::v1 as rpc;
use ankole_proto::{BLOCK_BYTES, NodeName, ReplicaId};

use super::moment;
use crate::reconcile::{
    EngineSeen, Liveness, Now, Observed, SILENT_MS, Sight, Stored, StoredState, agent_alive,
    liveness,
};
use crate::state::{Phase, Replica, ReplicaMode, Snapshot, State, Volume, WriteCache, iqn, record};

/// The volume's engine as it reported last, when it is the present one and reports still.
fn engine<'a>(observed: &'a Observed, now: Now, volume: &Volume) -> Option<&'a EngineSeen> {
    let seen = observed.engines.get(&volume.id)?;
    let fresh = now.tick.since_ms(seen.at.tick) <= SILENT_MS;
    (fresh && seen.said.epoch == volume.epoch).then_some(&seen.said)
}

/// Whether the volume's target accepts logins where it is attached.
pub(in crate::api) fn serves(observed: &Observed, now: Now, volume: &Volume) -> bool {
    match (&volume.phase, engine(observed, now, volume)) {
        (Phase::Attached(node), Some(engine)) => {
            // An engine without target that has ended may still be the last that reported; its
            // agent lists none until the next has its own epoch.
            let agent = observed.agents.get(node);
            let listed = agent.is_some_and(|agent| agent.said.engines.contains_key(&volume.id));
            engine.serving && engine.node == *node && volume.worker.is_none() && listed
        }
        _ => false,
    }
}

/// Sessions logged in, as far as is known.
fn initiators(observed: &Observed, now: Now, volume: &Volume) -> u32 {
    engine(observed, now, volume).map_or(0, |engine| engine.initiators)
}

/// A volume.
pub(in crate::api) fn volume(
    state: &State,
    observed: &Observed,
    now: Now,
    volume: &Volume,
) -> rpc::Volume {
    let teller = Teller {
        state,
        observed,
        now,
        volume,
    };
    let replicas = volume
        .replicas
        .iter()
        .map(|(id, one)| teller.replica(*id, one))
        .collect();
    let chap = volume.chap.as_ref();
    let mutual = chap.and_then(|chap| chap.mutual.as_ref());
    rpc::Volume {
        id: volume.id.to_string(),
        name: volume.name.clone(),
        size_bytes: volume.size.bytes(),
        replica_count: volume.replica_count,
        state: teller.state().into(),
        health: teller.health().into(),
        epoch: volume.epoch.raw(),
        node: volume
            .phase
            .node()
            .map(ToString::to_string)
            .unwrap_or_default(),
        target: teller.target(),
        replicas,
        head_layer: volume.head.to_string(),
        message: teller.message(),
        revision: volume.revision,
        created_at_ms: volume.created_at_ms,
        used_bytes: teller.used_bytes(),
        initiators: initiators(observed, now, volume),
        write_cache: match volume.write_cache {
            WriteCache::On => rpc::WriteCache::On.into(),
            WriteCache::Off => rpc::WriteCache::Off.into(),
        },
        rebuild_bytes_per_second: volume.rebuild_bytes_per_second,
        chap_user: chap.map(|chap| chap.user.clone()).unwrap_or_default(),
        chap_mutual_user: mutual.map(|(user, _)| user.clone()).unwrap_or_default(),
        comparison: teller.comparison(),
        repaired_blocks: volume.repaired_blocks,
        source_snapshot_id: volume
            .origin
            .map(|origin| origin.snapshot.to_string())
            .unwrap_or_default(),
    }
}

struct Teller<'a> {
    state: &'a State,
    observed: &'a Observed,
    now: Now,
    volume: &'a Volume,
}

impl Teller<'_> {
    fn state(&self) -> rpc::VolumeState {
        match self.volume.phase {
            Phase::Creating => rpc::VolumeState::Creating,
            Phase::Detached => rpc::VolumeState::Detached,
            Phase::Attached(_) if serves(self.observed, self.now, self.volume) => {
                rpc::VolumeState::Attached
            }
            Phase::Attached(_) => rpc::VolumeState::Attaching,
            Phase::Detaching(_) => rpc::VolumeState::Detaching,
            Phase::Deleting => rpc::VolumeState::Deleting,
        }
    }

    fn down(&self, node: &NodeName) -> bool {
        let live = liveness(self.state, self.observed, self.now, node);
        matches!(live, Liveness::Down { .. })
    }

    fn sight(&self, id: ReplicaId, replica: &Replica) -> Sight<'_> {
        self.observed.sight(&replica.node, replica.disk, id)
    }

    /// Whether a replica can be read and written, as far as is known.
    fn usable(&self, id: ReplicaId, replica: &Replica) -> bool {
        let faulted = match self.sight(id, replica) {
            Sight::Stored(stored) => stored.state == StoredState::Faulted,
            Sight::Missing | Sight::DiskFault => true,
            Sight::Unseen => false,
        };
        !faulted && !self.down(&replica.node)
    }

    fn health(&self) -> rpc::Health {
        let in_sync = self.volume.in_mode(ReplicaMode::InSync);
        let usable = in_sync
            .filter(|(id, replica)| self.usable(*id, replica))
            .count();
        if usable == 0 {
            rpc::Health::Faulted
        } else if usable >= self.volume.replica_count as usize {
            rpc::Health::Healthy
        } else {
            rpc::Health::Degraded
        }
    }

    fn target(&self) -> Option<rpc::Target> {
        let Phase::Attached(node) = &self.volume.phase else {
            return None;
        };
        let host = &self.observed.agents.get(node)?.said.engine_host;
        let port = self.volume.port;
        let bare_v6 = host.contains(':') && !host.starts_with('[');
        let portal = if bare_v6 {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        Some(rpc::Target {
            portal,
            iqn: iqn(self.volume.id),
        })
    }

    fn used_bytes(&self) -> u64 {
        let stored =
            self.volume
                .in_mode(ReplicaMode::InSync)
                .filter_map(|(id, replica)| match self.sight(id, replica) {
                    Sight::Stored(stored) => Some(stored.used_bytes),
                    _ => None,
                });
        stored.max().unwrap_or(0)
    }

    fn replica(&self, id: ReplicaId, replica: &Replica) -> rpc::Replica {
        let stored = match self.sight(id, replica) {
            Sight::Stored(stored) => Some(stored),
            _ => None,
        };
        let rebuilding = replica.mode == ReplicaMode::Rebuilding;
        let engine = engine(self.observed, self.now, self.volume).filter(|_| rebuilding);
        rpc::Replica {
            id: id.to_string(),
            node: replica.node.to_string(),
            disk_id: replica.disk.to_string(),
            mode: record::mode_to(replica.mode).into(),
            message: self.replica_message(id, replica),
            used_bytes: stored.map_or(0, |stored| stored.used_bytes),
            damaged_blocks: replica.wear.damaged_blocks,
            repaired_blocks: replica.wear.repaired_blocks,
            damages: self.damages(replica, stored),
            resummed_blocks: stored.map_or(0, |stored| stored.resummed_blocks),
            scrub: stored
                .map(|stored| stored.scrub)
                .filter(|scrub| scrub.started_at_ms > 0),
            layers: stored
                .map(|stored| stored.usage.clone())
                .unwrap_or_default(),
            rebuild: engine.and_then(|engine| engine.rebuilds.get(&id).copied()),
        }
    }

    /// The first damaged blocks of an in-sync replica (what another one lacks is no damage): as its
    /// blockd says, or as they are on record while that is silent.
    fn damages(&self, replica: &Replica, stored: Option<&Stored>) -> Vec<rpc::DamagedBlock> {
        if replica.mode != ReplicaMode::InSync {
            return Vec::new();
        }
        let told = match stored {
            Some(stored) => stored.told_damages.clone(),
            None => record::damages_to(&replica.wear.damages),
        };
        let of_volume = |one: &&Snapshot| one.volume == self.volume.id;
        let told = told.into_iter().map(|damage| {
            let mut snapshots = self.state.snapshots().values().filter(of_volume);
            let is_its = |one: &&Snapshot| {
                one.layer
                    .is_some_and(|layer| layer.to_string() == damage.layer)
            };
            let snapshot = snapshots.find(is_its);
            rpc::DamagedBlock {
                snapshot: snapshot.map(|one| one.name.clone()).unwrap_or_default(),
                offset: damage.offset,
                length: BLOCK_BYTES,
                flaw: damage.flaw,
                found_at_ms: damage.found_at_ms,
                layer: damage.layer,
            }
        });
        told.collect()
    }

    /// Why a replica is not as it should be; empty when it is.
    fn replica_message(&self, id: ReplicaId, replica: &Replica) -> String {
        let mut parts = Vec::new();
        if !matches!(replica.mode, ReplicaMode::InSync | ReplicaMode::Creating) {
            let since = format!("{} since {}", replica.mode, moment(replica.since_ms));
            let reason = &replica.reason;
            parts.push(if reason.is_empty() {
                since
            } else {
                format!("{since}: {reason}")
            });
        }
        if self.down(&replica.node) {
            parts.push(format!("node {} is down", replica.node));
        } else {
            parts.extend(match self.sight(id, replica) {
                Sight::Stored(stored) if stored.state == StoredState::Faulted => {
                    Some(format!("the stored replica is faulted: {}", stored.message))
                }
                Sight::Stored(stored) => {
                    Some(stored.standstill.clone()).filter(|said| !said.is_empty())
                }
                Sight::DiskFault => Some("its disk is faulted or gone".to_owned()),
                Sight::Missing if replica.mode == ReplicaMode::Creating => {
                    Some("is to be stored".to_owned())
                }
                Sight::Missing if replica.mode != ReplicaMode::Deleting => {
                    Some("it is missing on its disk".to_owned())
                }
                _ => None,
            });
        }
        if replica.wear.is_worn(self.now.wall_ms) && replica.mode != ReplicaMode::Deleting {
            let (faults, blocks) = (replica.wear.faults, replica.wear.fault_blocks());
            parts.push(format!(
                "{faults} findings of {blocks} bad blocks within a day: it is replaced when there \
                 is room"
            ));
        }
        if replica.wear.damaged_blocks > 0 {
            let blocks = replica.wear.damaged_blocks;
            parts.push(format!("{blocks} damaged blocks are to be repaired"));
        }
        parts.join("; ")
    }

    /// The comparison under way, or the last one.
    fn comparison(&self) -> Option<rpc::ComparisonProgress> {
        let engine = engine(self.observed, self.now, self.volume);
        let said = engine.and_then(|engine| engine.comparison.as_ref());
        let wanted = self.volume.wanted_comparison();
        let under_way = said.filter(|said| !said.finished && Some(said.request) <= wanted);
        under_way
            .and_then(|said| said.progress)
            .or_else(|| self.volume.comparison.told())
    }

    /// Why the volume is not as wanted; empty when it is.
    fn message(&self) -> String {
        let mut parts: Vec<String> = self.phase_message().into_iter().collect();
        for (id, replica) in &self.volume.replicas {
            let message = self.replica_message(*id, replica);
            if !message.is_empty() {
                parts.push(format!("replica on {}: {message}", replica.node));
            }
        }
        let (live, wanted) = (self.volume.live().count(), self.volume.replica_count);
        if live < wanted as usize {
            parts.push(format!(
                "{wanted} replicas are wanted, and {live} placed: the next needs a node with room"
            ));
        }
        let undecided = self.volume.comparison.undecided_chunks;
        if undecided > 0 {
            parts.push(format!(
                "{undecided} chunks of 2 MiB read differently at its replicas, and nobody can say \
                 which are right: see \"Replicas that differ\" in docs/operating.md"
            ));
        }
        let waiting = self.volume.tasks.len();
        if waiting > 0 {
            parts.push(format!(
                "{waiting} snapshots, reverts or expansions wait for its engine"
            ));
        }
        parts.join("; ")
    }

    fn phase_message(&self) -> Option<String> {
        let engine = engine(self.observed, self.now, self.volume);
        match &self.volume.phase {
            Phase::Attached(node) if !serves(self.observed, self.now, self.volume) => {
                let silent = matches!(
                    agent_alive(self.observed, self.now, node),
                    Liveness::Down { .. }
                );
                let agent = self.observed.agents.get(node);
                let said = agent.and_then(|seen| seen.said.engines.get(&self.volume.id));
                let said = engine.map(|engine| &engine.message).or(said);
                Some(match said.filter(|said| !said.is_empty()) {
                    _ if silent => format!("the agent on node {node} does not report"),
                    Some(said) => format!("its target on {node} does not serve: {said}"),
                    None => format!("waits for its engine on node {node}"),
                })
            }
            Phase::Attached(_) => engine
                .map(|one| one.message.clone())
                .filter(|said| !said.is_empty()),
            Phase::Detaching(node) => Some(format!("waits for its engine on {node} to end")),
            Phase::Creating | Phase::Detached | Phase::Deleting => None,
        }
    }
}
