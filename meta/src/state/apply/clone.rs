//! Volumes that begin as a snapshot of another one: their replicas share its layers, each with an
//! in-sync replica of the source on the same disk. What shares nothing is built afterwards from
//! these.
//!
//! Nothing that a clone in the making is to share may go meanwhile: its snapshot and its source
//! cannot be deleted, and the layers below the snapshot are not merged (`removable_layers`).

use std::collections::BTreeMap;

use ankole_proto::rpc::v1::{CreateVolumeCommand, GiveUpCloneCommand, LogAnswer};
use ankole_proto::wire::body::SEALED_LAYERS_MAX;
use ankole_proto::{LayerId, ReplicaId, VolumeSize};

use super::{Apply, answer, parse};
use crate::state::{
    CloneOrigin, Phase, PhaseKind, Refusal, Replica, ReplicaMode, Severity, SnapshotState, Volume,
};

/// Every layer of a tree, and the one below it.
pub(super) type Tree = BTreeMap<LayerId, Option<LayerId>>;

impl Apply<'_> {
    /// What a new volume begins as, and the sealed layers that it shares; nothing when it begins
    /// empty.
    pub(super) fn clone_origin(
        &self,
        c: &CreateVolumeCommand,
        size: VolumeSize,
        replicas: &BTreeMap<ReplicaId, Replica>,
    ) -> Result<Option<(CloneOrigin, Tree)>, Refusal> {
        if c.source_snapshot_id.is_empty() {
            let text = "a replica of a volume that begins empty has no source";
            let sourced = replicas.values().any(|one| one.source.is_some());
            return if sourced {
                Err(Refusal::Invalid(text.to_owned()))
            } else {
                Ok(None)
            };
        }
        let snapshot = self.snapshot(&c.source_snapshot_id)?;
        let source = self.volume(&snapshot.volume.to_string())?;
        let what = format!("snapshot {:?}", snapshot.name);
        let no = |why: &str| {
            let (what, why) = (what.clone(), why.to_owned());
            Err(Refusal::NoClone { what, why })
        };
        let layer = match (snapshot.state, snapshot.layer) {
            (SnapshotState::Ready, Some(layer)) => layer,
            (SnapshotState::Deleting, _) => return no("it is being deleted; choose another"),
            _ => return no("it is not ready; wait until it is"),
        };
        if size < snapshot.size {
            let least = snapshot.size.bytes();
            return no(&format!("it has {least} bytes; ask for as many, or more"));
        }
        if self.state.merges_below(&source, layer) {
            return no("a snapshot below it is being deleted; try again when that is gone");
        }
        let tree = source.chain(layer);
        if tree.len() >= SEALED_LAYERS_MAX {
            return no(
                "254 layers lie below it, and the clone could have no snapshot; delete older \
                 snapshots of its volume first",
            );
        }
        let shares = |replica: &Replica| {
            let there = replica.source.and_then(|id| source.replicas.get(&id));
            there.is_some_and(|one| {
                let here = one.node == replica.node && one.disk == replica.disk;
                here && one.mode == ReplicaMode::InSync
            })
        };
        if !replicas.values().all(shares) {
            return Err(Refusal::SourceMoved(snapshot.name));
        }
        let origin = CloneOrigin {
            snapshot: snapshot.id,
            volume: source.id,
            layer,
        };
        Ok(Some((origin, tree)))
    }

    /// The name of a volume that is being created as a clone of what this picks.
    pub(super) fn clone_under_way(&self, picks: impl Fn(&CloneOrigin) -> bool) -> Option<String> {
        let creating = self.state.volumes.values();
        let mut creating = creating.filter(|one| one.phase.kind() == PhaseKind::Creating);
        let found = creating.find(|one| one.origin.as_ref().is_some_and(&picks));
        found.map(|one| one.name.clone())
    }

    /// Whether a replica that a blockd has made of a source may count: the source is in sync, so
    /// all that are made are alike.
    pub(super) fn source_is_good(&self, volume: &Volume, replica: &Replica) -> bool {
        let Some(source) = replica.source else {
            return true;
        };
        let origin = volume
            .origin
            .and_then(|one| self.state.volumes.get(&one.volume));
        let found = origin.and_then(|origin| origin.replicas.get(&source));
        found.is_some_and(|one| one.mode == ReplicaMode::InSync)
    }

    pub(super) fn give_up_clone(&mut self, c: &GiveUpCloneCommand) -> Result<LogAnswer, Refusal> {
        let volume = self.volume(&c.volume_id)?;
        let id: ReplicaId = parse(&c.replica_id)?;
        let found = volume.replicas.get(&id);
        let mode = found.ok_or(Refusal::UnknownReplica(id))?.mode;
        if volume.phase.kind() != PhaseKind::Creating || mode != ReplicaMode::Creating {
            return Ok(answer(&volume));
        }
        self.give_up_replica(volume, id, &c.reason)
    }

    /// Does without a replica of a clone: it is built from the others later. Without any the volume
    /// cannot come about.
    pub(super) fn give_up_replica(
        &mut self,
        mut volume: Volume,
        id: ReplicaId,
        reason: &str,
    ) -> Result<LogAnswer, Refusal> {
        volume.turn(id, ReplicaMode::Deleting, reason, self.at())?;
        let node = volume.replicas.get(&id).map(|one| one.node.clone());
        let node = node.map(|node| node.to_string()).unwrap_or_default();
        let message = format!("the replica on {node} cannot begin as its source there: {reason}");
        self.volume_event(
            Severity::Warning,
            "CloneReplicaGivenUp",
            &volume.name,
            message,
        );
        if volume.live().next().is_none() {
            volume.enter(Phase::Deleting, "given up")?;
            let message = format!("no replica could be made of its source: {reason}");
            self.volume_event(Severity::Error, "CloneFailed", &volume.name, message);
            return Ok(self.put(volume));
        }
        self.complete_creation(&mut volume)?;
        Ok(self.put(volume))
    }

    /// A new volume is complete when nothing is to be stored any more.
    pub(super) fn complete_creation(&mut self, volume: &mut Volume) -> Result<(), Refusal> {
        if volume.in_mode(ReplicaMode::Creating).next().is_some() {
            return Ok(());
        }
        volume.enter(Phase::Detached, "completed")?;
        let message = "all replicas are stored".to_owned();
        self.volume_event(Severity::Info, "VolumeReady", &volume.name, message);
        Ok(())
    }
}
