//! Tasks of the orders: seal for a snapshot, revert to one, grow.
//!
//! ```text
//!            ┌──────────┐ nothing begun  ┌──────────┐ all have   ┌─────────┐ all have
//!  ─────────▶│ Draining │───────────────▶│ Flushing │───────────▶│ Changing│──────────┐
//!    seal,   └────┬─────┘                └────┬─────┘            └─────────┘          ▼
//!    revert       │ refused           of a    ▼           released  ▲  ▲        ┌───────────┐
//!                 ├────────────────── group ┌─────────┐─────────────┘  │ expand │ Recording │─▶
//!                 │                         │ Holding │                │        └───────────┘
//!                 │                         └────┬────┘                               ▲
//!                 └──────────────────────────────┴─ too long ─────────────────────────┘
//! ```
//!
//! From Draining to Changing no mutation begins; reads go on. An expansion stops nothing: what it
//! changes lies beyond everything that is in flight. Each stage waits for every required replica,
//! so one that is lost in between is recorded lost before the task is done. All of it may be
//! repeated: by this engine when a link broke, by the next one when this one dies.

mod group;
mod kind;

use ankole_proto::wire::body::LayerLink;
use ankole_proto::wire::{Frame, Header, Opcode};
use ankole_proto::{LayerId, ReplicaId};
use bytes::Bytes;

use super::event::{Effect, GroupStage, Record, RecordRefusal, Task, TaskId, TaskKind};
use super::loss::Grace;
use super::replica::{Ask, Replica, Slot, SlotSet};
use super::{Mirror, Phase};
use crate::volume::Moment;

/// The task in hand.
#[derive(Debug)]
pub(super) struct ActiveTask {
    task: Task,
    stage: TaskStage,
    /// When it was taken in hand: a group's seal has held mutations since then.
    since: Moment,
}

#[derive(Debug)]
enum TaskStage {
    Draining,
    Flushing {
        done: SlotSet,
    },
    /// Waits until every volume of the group holds.
    Holding,
    Changing {
        done: SlotSet,
        refused: SlotSet,
        why: String,
    },
    Recording {
        refusal: Option<String>,
        ask_at: Option<Moment>,
    },
}

impl Mirror {
    /// Whether a task keeps mutations from beginning.
    pub(super) fn task_gates(&self) -> bool {
        self.task_is_busy() && self.task.as_ref().is_some_and(|a| a.task.stops_mutations())
    }

    /// Whether the replicas are at work for a task, or are about to be.
    pub(super) fn task_is_busy(&self) -> bool {
        self.task
            .as_ref()
            .is_some_and(|active| !matches!(active.stage, TaskStage::Recording { .. }))
    }

    /// Whether no mutation may begin.
    pub(super) fn gate_is_closed(&self) -> bool {
        // Recovery comes after a half-done task, and stopping drains what is there.
        self.task_gates()
    }

    /// The new head of a task that is being carried out.
    pub(super) fn task_head(&self) -> Option<LayerId> {
        let active = self.task.as_ref()?;
        let changing = matches!(active.stage, TaskStage::Changing { .. });
        active.task.new_head().filter(|_| changing)
    }

    /// Whether a replica has the head of the first task: a previous engine had begun it, so
    /// everything was drained and flushed.
    pub(super) fn half_done_task(&self) -> bool {
        let Some(new_head) = self.orders.tasks.first().and_then(Task::new_head) else {
            return false;
        };
        new_head != self.head
            && self.replicas.values().any(|replica| {
                replica.is_in_sync() && replica.tree.iter().any(|l| l.layer == new_head)
            })
    }

    /// Completes what a previous engine had begun.
    pub(super) fn resume_half_done_task(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if let Some(task) = self.orders.tasks.first().copied() {
            self.take_in_hand(task, TaskStage::Draining);
            self.change(now, effects);
        }
    }

    /// Goes on with the task in hand, or takes the next.
    pub(super) fn tend_task(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        let settling = self
            .replicas
            .values()
            .any(|r| r.rebuild().is_some_and(|b| b.is_settling()));
        if self.task.is_none() && !settling && matches!(self.phase, Phase::Serving) {
            // A replica that is about to count would join between two stages.
            self.take_task();
        }
        self.tend_group(now, effects);
        let required = self.required();
        let begun = self.jobs.begun();
        let Some(active) = &mut self.task else {
            return;
        };
        match &mut active.stage {
            TaskStage::Draining if !active.task.stops_mutations() => self.change(now, effects),
            TaskStage::Draining if begun == 0 => self.flush_for_task(now, effects),
            TaskStage::Flushing { done } if done.covers(required) => {
                if active.task.group().is_some() {
                    self.set_stage(TaskStage::Holding);
                    self.attention = true;
                } else {
                    self.change(now, effects);
                }
            }
            TaskStage::Changing { done, refused, .. } => {
                let (done, refused) = (*done, *refused);
                self.check_change(done, refused, now, effects);
            }
            TaskStage::Recording { refusal, ask_at } if ask_at.is_some_and(|at| now >= at) => {
                *ask_at = None;
                let (task, refusal) = (active.task.id, refusal.clone());
                effects.push(Effect::Record(Record::TaskDone { task, refusal }));
            }
            _ => {}
        }
    }

    fn take_task(&mut self) {
        let Some(task) = self.orders.tasks.first().copied() else {
            return;
        };
        let refusal = match task.kind {
            _ if task.new_head() == Some(self.head) => None,
            TaskKind::Expand { size } if size <= self.orders.size => None,
            TaskKind::Seal { head, .. } if head != self.head => Some(format!(
                "layer {head} is not the head, which is {}",
                self.head
            )),
            TaskKind::Revert { .. } if self.initiators > 0 => Some(format!(
                "{} initiators are logged in: log them out, or detach the volume",
                self.initiators
            )),
            _ if task.group() == Some(GroupStage::Release) => Some(
                "this engine has not held the volume for the group, so its seal would be no part \
                 of one cut: take the group's snapshots again"
                    .to_owned(),
            ),
            _ => {
                self.take_in_hand(task, TaskStage::Draining);
                return;
            }
        };
        let ask_at = Some(self.now);
        self.take_in_hand(task, TaskStage::Recording { refusal, ask_at });
    }

    fn take_in_hand(&mut self, task: Task, stage: TaskStage) {
        let since = self.now;
        self.task = Some(ActiveTask { task, stage, since });
    }

    fn flush_for_task(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        self.set_stage(TaskStage::Flushing {
            done: SlotSet::default(),
        });
        self.send_task_frames(None, now, effects);
    }

    fn change(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        self.pause_rebuilds(now, effects);
        self.set_stage(TaskStage::Changing {
            done: SlotSet::default(),
            refused: SlotSet::default(),
            why: String::new(),
        });
        self.send_task_frames(None, now, effects);
    }

    fn set_stage(&mut self, stage: TaskStage) {
        if let Some(active) = &mut self.task {
            active.stage = stage;
        }
    }

    /// Sends the stage's frame to every required replica, or to one, unless it has answered.
    fn send_task_frames(
        &mut self,
        only: Option<ReplicaId>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let Some(active) = &self.task else {
            return;
        };
        let (done, (mut header, body)) = match &active.stage {
            TaskStage::Flushing { done } => {
                (*done, (Header::request(Opcode::Flush, 0), Bytes::new()))
            }
            TaskStage::Changing { done, .. } => (*done, active.task.frame()),
            _ => return,
        };
        header.watermark = self.window.watermark().raw();
        for replica in self.replicas.values_mut() {
            let wanted = only.is_none_or(|id| id == replica.id());
            if wanted && replica.counts() && replica.receives() && !done.contains(replica.slot) {
                replica.send(Ask::Task, header, body.clone(), now, effects);
            }
        }
    }

    /// A replica came back: it gets the stage's frame again.
    pub(super) fn resend_task(&mut self, id: ReplicaId, now: Moment, effects: &mut Vec<Effect>) {
        self.send_task_frames(Some(id), now, effects);
    }

    /// A replica answered the stage's frame.
    pub(super) fn task_reply(
        &mut self,
        id: ReplicaId,
        frame: &Frame,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        self.attention = true;
        let Some(slot) = self.replicas.get(&id).map(|replica| replica.slot) else {
            return;
        };
        let error = frame.header.error;
        let flushing = frame.header.opcode == Opcode::Flush;
        match (self.task.as_mut().map(|active| &mut active.stage), error) {
            (Some(TaskStage::Flushing { done }), None) if flushing => done.insert(slot),
            (Some(TaskStage::Changing { done, .. }), None) if !flushing => done.insert(slot),
            (Some(TaskStage::Changing { refused, why, .. }), Some(error)) if !flushing => {
                refused.insert(slot);
                *why = error.to_string();
            }
            (_, Some(error)) => {
                let reason = format!("refused a flush: {error}");
                self.lose(id, reason, Grace::None, now, effects);
            }
            _ => {}
        }
    }

    fn check_change(
        &mut self,
        done: SlotSet,
        refused: SlotSet,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) {
        let required = self.required();
        let Some(active) = &mut self.task else {
            return;
        };
        let TaskStage::Changing { why, .. } = &mut active.stage else {
            return;
        };
        if required.is_empty() || !done.or(refused).covers(required) {
            return;
        }
        let refused = refused.and(required);
        let why = why.clone();
        if refused.is_empty() {
            self.changed();
        } else if done.and(required).is_empty() {
            let refusal = Some(format!("every replica refused: {why}"));
            self.record_task(refusal);
        } else {
            for id in self.ids_of(refused) {
                let reason = format!("refused to change its layers: {why}");
                self.lose(id, reason, Grace::None, now, effects);
            }
        }
    }

    /// Every required replica has the new head.
    fn changed(&mut self) {
        let Some(active) = &self.task else {
            return;
        };
        let (Some(layer), parent) = (active.task.new_head(), active.task.parent()) else {
            self.record_task(None);
            return;
        };
        let link = LayerLink { layer, parent };
        let reverted = matches!(active.task.kind, TaskKind::Revert { .. });
        let old = self.head;
        self.head = link.layer;
        for replica in self
            .replicas
            .values_mut()
            .filter(|replica| replica.counts())
        {
            add_layer(replica, link, reverted.then_some(old));
        }
        self.record_task(None);
    }

    fn record_task(&mut self, refusal: Option<String>) {
        let ask_at = Some(self.now);
        self.set_stage(TaskStage::Recording { refusal, ask_at });
        self.attention = true;
    }

    /// The managers answered.
    pub(super) fn task_recorded(
        &mut self,
        id: TaskId,
        refusal: Option<RecordRefusal>,
        now: Moment,
    ) {
        let pause = self.config.limits.record_pause;
        let Some(active) = self.task.as_mut().filter(|active| active.task.id == id) else {
            return;
        };
        let TaskStage::Recording { ask_at, .. } = &mut active.stage else {
            return;
        };
        let listed = self.orders.tasks.iter().any(|task| task.id == id);
        match refusal {
            Some(RecordRefusal::Unreachable(_) | RecordRefusal::LastInSync) => {
                *ask_at = Some(now + pause);
            }
            // The orders at hand are older than the record: wait for newer ones.
            None if listed => *ask_at = Some(now + pause),
            _ => {
                self.orders.tasks.retain(|task| task.id != id);
                self.task = None;
            }
        }
    }

    /// A replica has left: its slot means nobody.
    pub(super) fn clear_task_slot(&mut self, slot: Slot) {
        match self.task.as_mut().map(|active| &mut active.stage) {
            Some(TaskStage::Flushing { done }) => done.remove(slot),
            Some(TaskStage::Changing { done, refused, .. }) => {
                done.remove(slot);
                refused.remove(slot);
            }
            _ => {}
        }
    }

    /// When the managers are to be asked again.
    pub(super) fn task_wake_at(&self) -> Option<Moment> {
        match self.task.as_ref().map(|active| &active.stage) {
            Some(TaskStage::Recording { ask_at, .. }) => *ask_at,
            _ => self.group_wake_at(),
        }
    }
}

/// Notes the new head in what is known of a replica's tree. A revert gives the old head up.
fn add_layer(replica: &mut Replica, link: LayerLink, given_up: Option<LayerId>) {
    replica.tree.retain(|known| Some(known.layer) != given_up);
    if !replica.tree.iter().any(|known| known.layer == link.layer) {
        replica.tree.push(link);
    }
}
