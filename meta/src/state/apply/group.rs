//! Snapshots of several volumes as one cut: asked for, released, taken, undone.
//!
//! Upholds: a member's snapshot is ready only when every member has sealed; of a group that was
//! undone no snapshot stays but those whose engine may have begun, and these go when it has told.

use std::collections::BTreeMap;

use ankole_proto::rpc::v1::{
    CreateSnapshotGroupCommand, HoldSnapshotGroupCommand, LogAnswer, ReleaseSnapshotGroupCommand,
    UndoSnapshotGroupCommand,
};
use ankole_proto::{Epoch, SnapshotGroupId, SnapshotId, VolumeId};

use super::snapshot::works_on_tasks;
use super::{Apply, parse};
use crate::state::changes::Key;
use crate::state::{
    GROUP_MEMBERS_MAX, GROUPS_MAX, GroupMember, GroupStage, Refusal, Severity, SnapshotGroup,
    SnapshotState, TaskKind, UNDONE_MAX, Volume,
};

impl Apply<'_> {
    /// All members are checked before the first is changed.
    pub(super) fn create_snapshot_group(
        &mut self,
        c: &CreateSnapshotGroupCommand,
    ) -> Result<LogAnswer, Refusal> {
        let id: SnapshotGroupId = parse(&c.group_id)?;
        self.group_is_new(id, c.members.len())?;
        let mut chosen: BTreeMap<VolumeId, SnapshotId> = BTreeMap::new();
        for member in &c.members {
            let volume = self.volume(&member.volume_id)?;
            let snapshot: SnapshotId = parse(&member.snapshot_id)?;
            works_on_tasks(&volume, "given a snapshot")?;
            self.name_is_free(volume.id, snapshot, &c.name)?;
            let new_head = volume.head;
            volume
                .clone()
                .enqueue(TaskKind::Seal { snapshot, new_head })?;
            let twice = chosen.values().any(|other| *other == snapshot);
            if twice || chosen.insert(volume.id, snapshot).is_some() {
                return Err(Refusal::VolumeTwice(volume.name));
            }
        }
        let mut members = BTreeMap::new();
        for (volume, snapshot) in &chosen {
            let volume = self.volume(&volume.to_string())?;
            let volume_id = volume.id;
            let (task, _) = self.begin_snapshot(volume, *snapshot, &c.name, Some(id))?;
            let (snapshot, sealed) = (*snapshot, false);
            members.insert(
                volume_id,
                GroupMember {
                    snapshot,
                    task,
                    sealed,
                },
            );
        }
        self.put_group(SnapshotGroup {
            id,
            name: c.name.clone(),
            stage: GroupStage::Gather,
            since_ms: self.at_ms,
            members,
        });
        Ok(LogAnswer {
            group_id: id.to_string(),
            ..LogAnswer::default()
        })
    }

    fn group_is_new(&self, id: SnapshotGroupId, members: usize) -> Result<(), Refusal> {
        if members == 0 || members > GROUP_MEMBERS_MAX {
            let text = format!("a group has 1 to {GROUP_MEMBERS_MAX} volumes, not {members}");
            return Err(Refusal::Invalid(text));
        }
        if self.state.groups.contains_key(&id) {
            let text = format!("group id {id} is taken; choose another");
            return Err(Refusal::Invalid(text));
        }
        let open = self.state.groups.values().filter(|group| group.is_open());
        if open.count() >= GROUPS_MAX {
            return Err(Refusal::TooManyGroups);
        }
        Ok(())
    }

    /// The engines of all members run: from now on their orders have the task.
    pub(super) fn hold_snapshot_group(
        &mut self,
        c: &HoldSnapshotGroupCommand,
    ) -> Result<LogAnswer, Refusal> {
        let mut group = self.group(&c.group_id)?;
        if group.stage == GroupStage::Gather {
            group.stage = GroupStage::Hold;
            group.since_ms = self.at_ms;
            self.touch_members(&group);
            self.put_group(group);
        }
        Ok(LogAnswer::default())
    }

    /// The engines of all members hold, each under its volume's newest epoch.
    pub(super) fn release_snapshot_group(
        &mut self,
        c: &ReleaseSnapshotGroupCommand,
    ) -> Result<LogAnswer, Refusal> {
        let mut group = self.group(&c.group_id)?;
        match group.stage {
            GroupStage::Release => return Ok(LogAnswer::default()),
            GroupStage::Undone { .. } => return Err(Refusal::GroupUndone(group.name)),
            GroupStage::Gather | GroupStage::Hold => {}
        }
        let held = c.held.iter().map(|one| {
            let volume: VolumeId = parse(&one.volume_id)?;
            Ok((volume, Epoch::from_raw(one.epoch)))
        });
        let held = held.collect::<Result<BTreeMap<_, _>, Refusal>>()?;
        for (id, member) in &group.members {
            let volume = self.volume(&id.to_string())?;
            let first = volume
                .tasks
                .front()
                .is_some_and(|one| one.id == member.task);
            let runs = volume.wanted_engine().is_some();
            if held.get(id) != Some(&volume.epoch) || !first || !runs {
                return Err(Refusal::NotHeld {
                    group: group.name,
                    volume: volume.name,
                });
            }
        }
        group.stage = GroupStage::Release;
        group.since_ms = self.at_ms;
        self.touch_members(&group);
        self.put_group(group);
        Ok(LogAnswer::default())
    }

    pub(super) fn undo_snapshot_group(
        &mut self,
        c: &UndoSnapshotGroupCommand,
    ) -> Result<LogAnswer, Refusal> {
        let group = self.group(&c.group_id)?;
        self.undo_group(group, &c.reason);
        Ok(LogAnswer::default())
    }

    /// A member's engine has sealed it; the volume's tree has the new head already.
    pub(super) fn member_sealed(&mut self, volume: VolumeId, group: SnapshotGroupId) {
        let Some(mut group) = self.state.groups.get(&group).cloned() else {
            return;
        };
        let Some(member) = group.members.get_mut(&volume) else {
            return;
        };
        member.sealed = true;
        let snapshot = member.snapshot;
        match group.stage {
            GroupStage::Undone { .. } => {
                group.members.remove(&volume);
                self.delete_member(snapshot);
                self.put_group(group);
                self.forget_undone();
            }
            // Without a release it is no part of one cut.
            GroupStage::Gather | GroupStage::Hold => {
                let reason = "an engine has sealed its volume before all of them held";
                self.undo_group(group, reason);
            }
            GroupStage::Release if group.members.values().all(|one| one.sealed) => {
                self.complete_group(&group);
            }
            GroupStage::Release => self.put_group(group),
        }
    }

    /// A member's engine does not take the snapshot: its task and its snapshot are gone already.
    pub(super) fn member_refused(&mut self, volume: &Volume, group: SnapshotGroupId, why: &str) {
        let Some(mut group) = self.state.groups.get(&group).cloned() else {
            return;
        };
        group.members.remove(&volume.id);
        let reason = format!("volume {}: {why}", volume.name);
        self.undo_group(group, &reason);
    }

    /// Every member has sealed: the cut is whole.
    fn complete_group(&mut self, group: &SnapshotGroup) {
        for (id, member) in &group.members {
            if let Some(mut snapshot) = self.state.snapshots.get(&member.snapshot).cloned() {
                snapshot.state = SnapshotState::Ready;
                self.put_snapshot(snapshot);
            }
            let message = format!("snapshot {} is ready, one of a group", group.name);
            let name = self.state.volumes.get(id).map(|one| one.name.clone());
            self.volume_event(
                Severity::Info,
                "SnapshotReady",
                &name.unwrap_or_default(),
                message,
            );
        }
        self.touch_members(group);
        self.state.groups.remove(&group.id);
        self.touched.note(Key::Group(group.id));
    }

    /// Takes back what can be taken back. One that was undone before only keeps what is left.
    fn undo_group(&mut self, mut group: SnapshotGroup, reason: &str) {
        if !group.is_open() {
            self.put_group(group);
            self.forget_undone();
            return;
        }
        let released = group.stage == GroupStage::Release;
        let mut left = BTreeMap::new();
        for (id, member) in std::mem::take(&mut group.members) {
            if member.sealed {
                self.delete_member(member.snapshot);
            } else if released {
                // Its engine may have begun.
                left.insert(id, member);
            } else {
                self.withdraw(id, member, reason);
            }
        }
        group.members = left;
        group.stage = GroupStage::Undone {
            reason: reason.to_owned(),
        };
        group.since_ms = self.at_ms;
        let message = format!("the snapshots of the group were not taken: {reason}");
        let subject = format!("group/{}", group.name);
        self.event(Severity::Warning, "SnapshotGroupUndone", subject, message);
        self.put_group(group);
        self.forget_undone();
    }

    /// Withdraws a task that no engine may have begun to carry out.
    fn withdraw(&mut self, id: VolumeId, member: GroupMember, reason: &str) {
        self.remove_snapshot(member.snapshot);
        let Some(mut volume) = self.state.volumes.get(&id).cloned() else {
            return;
        };
        volume.tasks.retain(|task| task.id != member.task);
        volume.remember_refused(member.task, reason);
        self.put(volume);
    }

    /// Deletes a member's snapshot as if somebody had asked for it.
    fn delete_member(&mut self, id: SnapshotId) {
        let Some(mut snapshot) = self.state.snapshots.get(&id).cloned() else {
            return;
        };
        snapshot.state = SnapshotState::Deleting;
        let volume = self.state.volumes.get(&snapshot.volume).cloned();
        self.put_snapshot(snapshot);
        if let Some(volume) = volume {
            self.put(volume);
        }
    }

    /// Undoes the groups that a volume is in, because it is deleted. Its own tasks and snapshots go
    /// with it.
    pub(super) fn leave_groups(&mut self, volume: &Volume) {
        let of_volume = self.state.groups.values();
        let of_volume = of_volume.filter(|group| group.members.contains_key(&volume.id));
        for mut group in of_volume.cloned().collect::<Vec<_>>() {
            group.members.remove(&volume.id);
            let reason = format!("volume {} is deleted", volume.name);
            self.undo_group(group, &reason);
        }
    }

    /// Gives the members' orders a new revision.
    fn touch_members(&mut self, group: &SnapshotGroup) {
        for id in group.members.keys() {
            if let Some(volume) = self.state.volumes.get(id).cloned() {
                self.put(volume);
            }
        }
    }

    /// The oldest of those that are over and were undone go.
    fn forget_undone(&mut self) {
        loop {
            let over = self.state.groups.values();
            let over = over.filter(|one| !one.is_open() && one.members.is_empty());
            if over.clone().count() <= UNDONE_MAX {
                return;
            }
            let Some(oldest) = over
                .min_by_key(|one| (one.since_ms, one.id))
                .map(|one| one.id)
            else {
                return;
            };
            self.state.groups.remove(&oldest);
            self.touched.note(Key::Group(oldest));
        }
    }

    fn group(&self, id: &str) -> Result<SnapshotGroup, Refusal> {
        let id: SnapshotGroupId = parse(id)?;
        let found = self.state.groups.get(&id).cloned();
        found.ok_or(Refusal::NoGroup(id))
    }

    fn put_group(&mut self, group: SnapshotGroup) {
        self.touched.note(Key::Group(group.id));
        self.state.groups.insert(group.id, group);
    }
}
