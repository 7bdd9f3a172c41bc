//! Creating and deleting volumes; the group's id.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ankole_proto::rpc::v1::{
    CreateVolumeCommand, DeleteVolumeCommand, LogAnswer, Placement, SetClusterCommand,
};
use ankole_proto::{Credential, Epoch, ReplicaId, VolumeId, VolumeSize};

use super::{Apply, answer, parse};
use crate::state::changes::Key;
use crate::state::record::write_cache_from;
use crate::state::{
    Chap, Comparison, Phase, PhaseKind, REPLICAS_MAX, Refusal, Replica, ReplicaMode, Scrub,
    Severity, State, Volume, Wear,
};

impl Apply<'_> {
    pub(super) fn set_cluster(&mut self, c: &SetClusterCommand) -> Result<LogAnswer, Refusal> {
        let id = parse(&c.cluster_id)?;
        if self.state.cluster_id.is_none() {
            self.state.cluster_id = Some(id);
            self.touched.note(Key::Cluster);
        }
        Ok(LogAnswer::default())
    }

    pub(super) fn create_volume(&mut self, c: &CreateVolumeCommand) -> Result<LogAnswer, Refusal> {
        let id: VolumeId = parse(&c.volume_id)?;
        let size = VolumeSize::from_bytes(c.size_bytes)
            .map_err(|error| Refusal::Invalid(error.to_string()))?;
        let credential = Credential::from_slice(&c.credential)
            .ok_or_else(|| Refusal::Invalid("a credential has 32 bytes".to_owned()))?;
        let taken = self
            .state
            .volumes
            .values()
            .any(|volume| volume.name == c.name);
        if taken || self.state.volumes.contains_key(&id) {
            return Err(Refusal::VolumeExists(c.name.clone()));
        }
        let replicas = place_all(self.state, &c.placements, self.at_ms)?;
        let replica_count = match c.replica_count {
            0 => u32::try_from(replicas.len()).unwrap_or(u32::MAX),
            wanted => checked_count(wanted)?,
        };
        let chap = c.chap.as_ref().map(Chap::from_message).transpose();
        let chap = chap.map_err(|error| Refusal::Invalid(error.to_string()))?;
        let (origin, mut layers) = match self.clone_origin(c, size, &replicas)? {
            Some((origin, tree)) => (Some(origin), tree),
            None => (None, BTreeMap::new()),
        };
        let head = self.allocate_layer()?;
        layers.insert(head, origin.map(|origin| origin.layer));
        let bytes = size.bytes();
        let mut message = format!("created with {bytes} bytes and {replica_count} replicas");
        if let Some(origin) = origin {
            message.push_str(&format!(", as a clone of snapshot {}", origin.snapshot));
        }
        self.volume_event(Severity::Info, "VolumeCreated", &c.name, message);
        Ok(self.put(Volume {
            id,
            name: c.name.clone(),
            size,
            replica_count,
            phase: Phase::Creating,
            port: 0,
            worker: None,
            epoch: Epoch::ZERO,
            restart_epoch: Epoch::ZERO,
            replicas,
            head,
            layers,
            tasks: VecDeque::new(),
            next_task: 1,
            refused: VecDeque::new(),
            credential,
            revision: self.index,
            created_at_ms: self.at_ms,
            write_cache: write_cache_from(c.write_cache()).unwrap_or_default(),
            rebuild_bytes_per_second: c.rebuild_bytes_per_second,
            chap,
            scrub: Scrub::default(),
            comparison: Comparison::default(),
            repaired_blocks: 0,
            origin,
        }))
    }

    pub(super) fn delete_volume(&mut self, c: &DeleteVolumeCommand) -> Result<LogAnswer, Refusal> {
        let mut volume = self.volume_at(&c.volume_id, c.revision)?;
        if volume.phase.kind() == PhaseKind::Deleting {
            return Ok(answer(&volume));
        }
        if let Some(clone) = self.clone_under_way(|origin| origin.volume == volume.id) {
            return Err(Refusal::CloneUnderWay {
                what: format!("volume {:?}", volume.name),
                clone,
            });
        }
        volume.enter(Phase::Deleting, "deleted")?;
        self.leave_groups(&volume);
        if self.state.reservations.remove(&volume.id).is_some() {
            self.touched.note(Key::Reservations(volume.id));
        }
        let replicas: Vec<ReplicaId> = volume.replicas.keys().copied().collect();
        for replica in replicas {
            if volume
                .replicas
                .get(&replica)
                .is_some_and(|r| r.mode != ReplicaMode::Deleting)
            {
                volume.turn(
                    replica,
                    ReplicaMode::Deleting,
                    "the volume is deleted",
                    self.at(),
                )?;
            }
        }
        volume.tasks.clear();
        let snapshots: Vec<_> = self
            .state
            .snapshots_of(volume.id)
            .map(|one| one.id)
            .collect();
        for snapshot in snapshots {
            self.remove_snapshot(snapshot);
        }
        let message = "deleted; its replicas are being removed".to_owned();
        self.volume_event(Severity::Info, "VolumeDeleted", &volume.name, message);
        let answer = self.put(volume.clone());
        self.remove_when_empty(&volume);
        Ok(answer)
    }

    /// A volume that is being deleted goes with its last replica and its engine.
    pub(super) fn remove_when_empty(&mut self, volume: &Volume) {
        let idle = volume.replicas.is_empty() && volume.worker.is_none();
        if volume.phase == Phase::Deleting && idle {
            self.state.volumes.remove(&volume.id);
            self.touched.note(Key::Volume(volume.id));
        }
    }
}

/// How many replicas are wanted, when a volume may have so many.
pub(super) fn checked_count(count: u32) -> Result<u32, Refusal> {
    if (1..=REPLICAS_MAX).contains(&count) {
        return Ok(count);
    }
    let text = format!("a volume has 1 to {REPLICAS_MAX} replicas, not {count}");
    Err(Refusal::Invalid(text))
}

/// The new replicas, when they lie on different nodes and their ids are new.
fn place_all(
    state: &State,
    placements: &[Placement],
    at_ms: u64,
) -> Result<BTreeMap<ReplicaId, Replica>, Refusal> {
    if placements.is_empty() {
        return Err(Refusal::Invalid("a volume needs a replica".to_owned()));
    }
    let mut replicas = BTreeMap::new();
    let mut nodes = BTreeSet::new();
    for placement in placements {
        let (id, replica) = place(state, placement, at_ms)?;
        if !nodes.insert(replica.node.clone()) || replicas.insert(id, replica).is_some() {
            let text = "two replicas of a volume cannot be on one node";
            return Err(Refusal::Invalid(text.to_owned()));
        }
    }
    Ok(replicas)
}

/// A replica that is to be created.
pub(super) fn place(
    state: &State,
    placement: &Placement,
    at_ms: u64,
) -> Result<(ReplicaId, Replica), Refusal> {
    let id: ReplicaId = parse(&placement.replica_id)?;
    let known = state
        .volumes
        .values()
        .any(|volume| volume.replicas.contains_key(&id));
    if known || state.doomed.contains_key(&id) {
        return Err(Refusal::Invalid(format!(
            "replica id {id} is taken; choose another"
        )));
    }
    let replica = Replica {
        node: parse(&placement.node)?,
        disk: parse(&placement.disk_id)?,
        mode: ReplicaMode::Creating,
        reason: String::new(),
        since_ms: at_ms,
        mode_revision: 0,
        wear: Wear::default(),
        independent: false,
        source: match placement.source_replica_id.as_str() {
            "" => None,
            source => Some(parse(source)?),
        },
    };
    Ok((id, replica))
}
