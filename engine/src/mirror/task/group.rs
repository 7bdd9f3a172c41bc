//! The seal of several volumes as one consistent cut: hold, say so, seal when all hold.
//!
//! The cut is one because there is a moment at which every volume holds: the managers release only
//! what the living engine of each volume says to hold, and an engine seals on release only what it
//! has held without a break since it said so. An engine that gives up says so to the managers and
//! never takes the task up again; one that has begun after the release refuses it, unless the
//! engine before it had begun to seal.

use super::{ActiveTask, TaskStage};
use crate::mirror::event::{Effect, GroupStage, Task, TaskId};
use crate::mirror::{Mirror, Phase};
use crate::volume::Moment;

impl ActiveTask {
    /// Whether it waits for its group, or for what comes before that.
    fn waits_for_group(&self) -> bool {
        let before = matches!(
            self.stage,
            TaskStage::Draining | TaskStage::Flushing { .. } | TaskStage::Holding
        );
        before && self.task.group().is_some()
    }
}

impl Mirror {
    /// The task for which everything is drained, flushed and held.
    pub(crate) fn held_task(&self) -> Option<TaskId> {
        let active = self.task.as_ref()?;
        matches!(active.stage, TaskStage::Holding).then_some(active.task.id)
    }

    /// Looks at what has become of the group.
    pub(super) fn tend_group(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let limit = self.config.limits.group_hold_limit;
        let Some(active) = self.task.as_ref().filter(|a| a.waits_for_group()) else {
            return;
        };
        let holds = matches!(active.stage, TaskStage::Holding);
        let too_long = now >= active.since + limit;
        let listed = self.orders.tasks.iter().find(|t| t.id == active.task.id);
        match listed.map(Task::group) {
            // Undone; or nobody will be served by this engine any more, and the next one has not
            // held.
            None => self.drop_task(),
            Some(_) if !matches!(self.phase, Phase::Serving) => self.drop_task(),
            Some(Some(GroupStage::Hold)) if !too_long => {}
            Some(Some(GroupStage::Hold)) => {
                let seconds = limit.as_secs();
                self.record_task(Some(format!(
                    "the other volumes of the group did not hold within {seconds} s"
                )));
            }
            Some(_) if holds => self.change(now, effects),
            Some(_) => {
                let reason = "the group was released before this volume held";
                self.record_task(Some(reason.to_owned()));
            }
        }
    }

    fn drop_task(&mut self) {
        self.task = None;
        self.attention = true;
    }

    /// When the group has been waited for long enough.
    pub(super) fn group_wake_at(&self) -> Option<Moment> {
        let active = self.task.as_ref().filter(|a| a.waits_for_group())?;
        Some(active.since + self.config.limits.group_hold_limit)
    }
}
