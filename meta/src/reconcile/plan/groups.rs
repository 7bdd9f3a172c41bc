//! Groups of snapshots: when all volumes have an engine, when all hold, when it takes too long.

use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{
    HeldMember, HoldSnapshotGroupCommand, ReleaseSnapshotGroupCommand, UndoSnapshotGroupCommand,
};

use super::{Commands, View};
use crate::reconcile::EngineSeen;
use crate::state::{GroupMember, GroupStage, SnapshotGroup, Volume};

impl<'a> View<'a> {
    fn engine_seen(self, volume: &Volume) -> Option<&'a EngineSeen> {
        self.observed.engines.get(&volume.id).map(|seen| &seen.said)
    }

    pub(super) fn groups(self, commands: &mut Commands) {
        for group in self.state.groups().values() {
            commands.extend(self.group(group));
        }
    }

    fn group(self, group: &SnapshotGroup) -> Option<Command> {
        let group_id = group.id.to_string();
        if group.is_late(self.now.wall_ms) {
            let reason = self.what_is_missing(group);
            return Some(Command::UndoSnapshotGroup(UndoSnapshotGroupCommand {
                group_id,
                reason,
            }));
        }
        match group.stage {
            GroupStage::Gather => {
                let all = self.all(group, |volume, member| self.is_ready(volume, member));
                all.then_some(Command::HoldSnapshotGroup(HoldSnapshotGroupCommand {
                    group_id,
                }))
            }
            GroupStage::Hold => {
                let all = self.all(group, |volume, member| self.holds(volume, member));
                let held = group.members.keys().filter_map(|id| {
                    let epoch = self.state.volumes().get(id)?.epoch.raw();
                    let volume_id = id.to_string();
                    Some(HeldMember { volume_id, epoch })
                });
                let held = held.collect();
                all.then_some(Command::ReleaseSnapshotGroup(ReleaseSnapshotGroupCommand {
                    group_id,
                    held,
                }))
            }
            GroupStage::Release | GroupStage::Undone { .. } => None,
        }
    }

    fn all(self, group: &SnapshotGroup, is_so: impl Fn(&Volume, &GroupMember) -> bool) -> bool {
        let mut members = group.members.iter();
        members.all(|(id, member)| {
            let volume = self.state.volumes().get(id);
            volume.is_some_and(|volume| is_so(volume, member))
        })
    }

    /// Whether the present engine serves and has nothing to do before the seal.
    fn is_ready(self, volume: &Volume, member: &GroupMember) -> bool {
        let first = volume
            .tasks
            .front()
            .is_some_and(|one| one.id == member.task);
        let serves = self.engine_seen(volume).is_some_and(|one| one.serving);
        first && serves && self.engine_runs(volume)
    }

    /// Whether the present engine says that it holds.
    fn holds(self, volume: &Volume, member: &GroupMember) -> bool {
        let held = self.engine_seen(volume).map(|one| one.held_task);
        held == Some(member.task) && self.engine_runs(volume)
    }

    /// For whoever asked for the group.
    fn what_is_missing(self, group: &SnapshotGroup) -> String {
        let late = |volume: &Volume, member: &GroupMember| match group.stage {
            GroupStage::Gather => !self.is_ready(volume, member),
            GroupStage::Hold => !self.holds(volume, member),
            GroupStage::Release | GroupStage::Undone { .. } => !member.sealed,
        };
        let names = group.members.iter().filter_map(|(id, member)| {
            let volume = self.state.volumes().get(id)?;
            late(volume, member).then(|| volume.name.clone())
        });
        let names: Vec<String> = names.collect();
        let what = match group.stage {
            GroupStage::Gather => "no engine was ready in time for",
            GroupStage::Hold => "not every write was flushed in time on",
            GroupStage::Release | GroupStage::Undone { .. } => "no engine has sealed in time",
        };
        format!("{what} {}; see why with `volume get`", names.join(", "))
    }
}
