//! How a log entry changes the state: one file per noun.
//!
//! A command works on copies of the records it changes and puts them back when nothing refuses, so
//! a refusal changes nothing.

mod clone;
mod engine;
mod group;
mod node;
mod replica;
mod reservations;
mod settings;
mod snapshot;
mod task;
mod volume;
mod wear;

use std::fmt::Display;
use std::str::FromStr;

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{LogAnswer, LogCommand};
use ankole_proto::{LayerId, VolumeId};

use super::changes::{Key, Touched};
use super::request::Remembered;
use super::volume::At;
use super::{Changes, Event, Refusal, Severity, Snapshot, State, Volume};

/// Changes the state by one entry.
pub(super) fn apply(state: &mut State, index: u64, command: &LogCommand) -> (LogAnswer, Changes) {
    let mut touched = Touched::default();
    let mut apply = Apply {
        state,
        touched: &mut touched,
        index,
        at_ms: command.at_ms,
    };
    let answer = apply.once(command).unwrap_or_else(|refusal| LogAnswer {
        refusal: Some(refusal.to_log()),
        ..LogAnswer::default()
    });
    let changes = touched.changes(state);
    (answer, changes)
}

/// One apply under way.
struct Apply<'a> {
    state: &'a mut State,
    touched: &'a mut Touched,
    index: u64,
    at_ms: u64,
}

impl Apply<'_> {
    /// Carries a command out unless its request id was seen.
    fn once(&mut self, command: &LogCommand) -> Result<LogAnswer, Refusal> {
        let unreadable = || Refusal::Malformed("the log entry holds no known command".to_owned());
        let act = command.command.as_ref().ok_or_else(unreadable)?;
        if command.request_id.is_empty() {
            return self.carry_out(act);
        }
        let call = name(act);
        if let Some((earlier, answer)) = self.state.requests.find(&command.request_id) {
            if earlier == call {
                return Ok(answer.clone());
            }
            let (id, earlier) = (command.request_id.clone(), earlier.to_owned());
            return Err(Refusal::RequestReused { id, earlier, call });
        }
        let answer = self.carry_out(act)?;
        self.remember(Remembered {
            id: command.request_id.clone(),
            at_ms: self.at_ms,
            call: call.to_owned(),
            answer: answer.clone(),
        });
        Ok(answer)
    }

    fn carry_out(&mut self, command: &Command) -> Result<LogAnswer, Refusal> {
        match command {
            Command::SetCluster(command) => self.set_cluster(command),
            Command::CreateVolume(command) => self.create_volume(command),
            Command::DeleteVolume(command) => self.delete_volume(command),
            Command::ReplicaCreated(command) => self.replica_created(command),
            Command::ReplicaGone(command) => self.replica_gone(command),
            Command::AttachVolume(command) => self.attach(command),
            Command::DetachVolume(command) => self.detach(command),
            Command::StartWorker(command) => self.start_worker(command),
            Command::StopWorker(command) => self.stop_worker(command),
            Command::EngineEnded(command) => self.engine_ended(command),
            Command::GrantEpoch(command) => self.grant_epoch(command),
            Command::ReplicaLost(command) => self.replica_lost(command),
            Command::StartRebuild(command) => self.start_rebuild(command),
            Command::ReplicaInSync(command) => self.replica_in_sync(command),
            Command::ReplaceReplica(command) => self.replace_replica(command),
            Command::CreateSnapshot(command) => self.create_snapshot(command),
            Command::DeleteSnapshot(command) => self.delete_snapshot(command),
            Command::RevertVolume(command) => self.revert_volume(command),
            Command::TaskDone(command) => self.task_done(command),
            Command::LayerGone(command) => self.layer_gone(command),
            Command::UpdateVolume(command) => self.update_volume(command),
            Command::ExpandVolume(command) => self.expand_volume(command),
            Command::ScrubVolume(command) => self.scrub_volume(command),
            Command::RestartEngine(command) => self.restart_engine(command),
            Command::AddReplica(command) => self.add_replica(command),
            Command::RemoveReplica(command) => self.remove_replica(command),
            Command::RecordDamages(command) => self.record_damages(command),
            Command::RecordRepairs(command) => self.record_repairs(command),
            Command::OrderComparison(command) => self.order_comparison(command),
            Command::RecordComparison(command) => self.record_comparison(command),
            Command::RecordReservations(command) => self.record_reservations(command),
            Command::CreateSnapshotGroup(command) => self.create_snapshot_group(command),
            Command::HoldSnapshotGroup(command) => self.hold_snapshot_group(command),
            Command::ReleaseSnapshotGroup(command) => self.release_snapshot_group(command),
            Command::UndoSnapshotGroup(command) => self.undo_snapshot_group(command),
            Command::GiveUpClone(command) => self.give_up_clone(command),
            Command::RegisterNode(command) => self.register_node(command),
            Command::MarkNode(command) => self.mark_node(command),
        }
    }

    const fn at(&self) -> At {
        At {
            ms: self.at_ms,
            index: self.index,
        }
    }

    fn remember(&mut self, request: Remembered) {
        for number in self.state.requests.forget(self.at_ms) {
            self.touched.note(Key::Request(number));
        }
        let number = self.state.requests.remember(request);
        self.touched.note(Key::Request(number));
        self.touched.note(Key::Cluster);
    }

    /// A copy of the volume, to be changed and put back.
    fn volume(&self, id: &str) -> Result<Volume, Refusal> {
        let id: VolumeId = parse(id)?;
        self.state
            .volumes
            .get(&id)
            .cloned()
            .ok_or(Refusal::NoVolume(id))
    }

    /// As [`Self::volume`], when it is at the revision that the caller expects.
    fn volume_at(&self, id: &str, expected: u64) -> Result<Volume, Refusal> {
        let volume = self.volume(id)?;
        if expected == 0 || expected == volume.revision {
            return Ok(volume);
        }
        let is = volume.revision;
        Err(Refusal::StaleRevision {
            volume: volume.name,
            is,
            expected,
        })
    }

    /// Puts a changed volume back; the answer that tells of it.
    fn put(&mut self, mut volume: Volume) -> LogAnswer {
        volume.revision = self.index;
        let answer = answer(&volume);
        self.touched.note(Key::Volume(volume.id));
        self.state.volumes.insert(volume.id, volume);
        answer
    }

    fn put_snapshot(&mut self, snapshot: Snapshot) {
        self.touched.note(Key::Snapshot(snapshot.id));
        self.state.snapshots.insert(snapshot.id, snapshot);
    }

    fn allocate_layer(&mut self) -> Result<LayerId, Refusal> {
        let layer = LayerId::from_raw(self.state.next_layer);
        self.state.next_layer += 1;
        self.touched.note(Key::Cluster);
        layer.ok_or_else(|| Refusal::Malformed("layer 0".to_owned()))
    }

    fn event(&mut self, severity: Severity, kind: &str, subject: String, message: String) {
        let kind = kind.to_owned();
        let event = Event {
            at_ms: self.at_ms,
            severity,
            kind,
            subject,
            message,
        };
        for number in self.state.events.push(event) {
            self.touched.note(Key::Event(number));
        }
        self.touched.note(Key::Cluster);
    }

    fn volume_event(&mut self, severity: Severity, kind: &str, volume: &str, message: String) {
        self.event(severity, kind, format!("volume/{volume}"), message);
    }
}

/// What a command that concerned this volume answers.
fn answer(volume: &Volume) -> LogAnswer {
    LogAnswer {
        revision: volume.revision,
        volume_id: volume.id.to_string(),
        epoch: volume.epoch.raw(),
        ..LogAnswer::default()
    }
}

/// An id in a command.
fn parse<T: FromStr<Err: Display>>(text: &str) -> Result<T, Refusal> {
    text.parse()
        .map_err(|error: T::Err| Refusal::Invalid(error.to_string()))
}

/// The stable name of a command that takes a request id.
pub(crate) const fn name(command: &Command) -> &'static str {
    match command {
        Command::CreateVolume(_) => "CreateVolume",
        Command::DeleteVolume(_) => "DeleteVolume",
        Command::AttachVolume(_) => "AttachVolume",
        Command::DetachVolume(_) => "DetachVolume",
        Command::CreateSnapshot(_) => "CreateSnapshot",
        Command::CreateSnapshotGroup(_) => "CreateSnapshotGroup",
        Command::DeleteSnapshot(_) => "DeleteSnapshot",
        Command::RevertVolume(_) => "RevertVolume",
        Command::UpdateVolume(_) => "UpdateVolume",
        Command::ExpandVolume(_) => "ExpandVolume",
        Command::ScrubVolume(_) => "ScrubVolume",
        Command::RestartEngine(_) => "RestartVolume",
        Command::GrantEpoch(_) => "GrantEpoch",
        _ => "a command of the managers",
    }
}
