//! Task management (RFC 7143 §4.2.3, 11.5, 11.6): dropping what has not begun, waiting for what
//! has, then answering.

use std::collections::BTreeSet;

use super::feature::Feature;
use super::task::{Stage, TaskId};
use super::{Action, DrainId, PurgeRequest, Wire};
use crate::iscsi::limit;
use crate::iscsi::pdu::{
    Header, RejectReason, Tag, TaskFunction, TaskManagement, TaskResponse, TaskResponseCode,
};
use crate::scsi::Reset;

/// Requests that wait for commands to end. Bounded by [`Waits::is_full`].
#[derive(Debug, Default)]
pub(super) struct Waits {
    waits: Vec<Wait>,
    /// Requests that wait for other sessions, too.
    purges: usize,
}

#[derive(Debug)]
struct Wait {
    tasks: BTreeSet<TaskId>,
    then: Then,
}

/// What follows when the last command has ended.
#[derive(Debug, Clone, Copy)]
enum Then {
    Respond { tag: Tag, immediate: bool },
    Drained(DrainId),
}

impl Waits {
    fn is_full(&self) -> bool {
        let window = limit::COMMAND_WINDOW as usize;
        self.waits.len() + self.purges >= window + limit::IMMEDIATE_COMMANDS
    }

    /// A command has ended: what waited for it alone may go on.
    fn settle(&mut self, task: TaskId) -> Vec<Then> {
        for wait in &mut self.waits {
            wait.tasks.remove(&task);
        }
        let ended = self.waits.extract_if(.., |wait| wait.tasks.is_empty());
        ended.map(|wait| wait.then).collect()
    }
}

impl Feature {
    pub(super) fn manage(
        &mut self,
        request: &TaskManagement,
        header: Header,
        wire: &mut Wire<'_>,
        actions: &mut Vec<Action>,
    ) {
        if self.waits.is_full() {
            self.end_turn(request.order.immediate);
            return self.reject(RejectReason::TooManyImmediate, header, wire);
        }
        let refuse = |code| {
            Some(TaskResponse {
                tag: request.tag,
                code,
            })
        };
        let refusal = match request.function {
            TaskFunction::AbortTask => return self.abort_task(request, wire, actions),
            TaskFunction::TaskReassign => refuse(TaskResponseCode::ReassignNotSupported),
            TaskFunction::ClearAca => refuse(TaskResponseCode::NotSupported),
            TaskFunction::Unknown(_) => refuse(TaskResponseCode::Rejected),
            TaskFunction::TargetWarmReset | TaskFunction::TargetColdReset => None,
            _ if !is_unit(request.lun) => refuse(TaskResponseCode::NoUnit),
            _ => None,
        };
        if let Some(response) = refusal {
            self.end_turn(request.order.immediate);
            return self.send(wire, response.pdu());
        }
        match request.function {
            // Each session has a task set of its own.
            TaskFunction::AbortTaskSet | TaskFunction::ClearTaskSet => {
                self.abort_task_set(request, wire, actions);
            }
            TaskFunction::UnitReset => {
                self.purge(request, Reset::LogicalUnit, actions);
            }
            TaskFunction::TargetWarmReset => self.purge(request, Reset::TargetWarm, actions),
            _ => self.purge(request, Reset::TargetCold, actions),
        }
    }

    fn abort_task(
        &mut self,
        request: &TaskManagement,
        wire: &mut Wire<'_>,
        actions: &mut Vec<Action>,
    ) {
        let then = Then::Respond {
            tag: request.tag,
            immediate: request.order.immediate,
        };
        if let Some(&id) = self.tags.get(&request.referenced) {
            let tasks = self.abort_one(id).into_iter().collect();
            self.wait(tasks, then, wire, actions);
            return self.pump(wire, actions);
        }
        // §11.6.1: a command that has not come yet is not to be executed when it does.
        let number = request.referenced_command;
        let code = if number.precedes(request.order.command) && self.window.void(number) {
            TaskResponseCode::Complete
        } else {
            TaskResponseCode::NoTask
        };
        self.end_turn(request.order.immediate);
        let tag = request.tag;
        self.send(wire, TaskResponse { tag, code }.pdu());
    }

    fn abort_task_set(
        &mut self,
        request: &TaskManagement,
        wire: &mut Wire<'_>,
        actions: &mut Vec<Action>,
    ) {
        let tasks = self.abort_released(None);
        let then = Then::Respond {
            tag: request.tag,
            immediate: request.order.immediate,
        };
        self.wait(tasks, then, wire, actions);
        self.pump(wire, actions);
    }

    fn purge(&mut self, request: &TaskManagement, reset: Reset, actions: &mut Vec<Action>) {
        self.waits.purges += 1;
        actions.push(Action::Purge {
            request: PurgeRequest {
                tag: request.tag,
                immediate: request.order.immediate,
                closes: reset == Reset::TargetCold,
            },
            reset,
        });
    }

    pub(super) fn purged(
        &mut self,
        request: PurgeRequest,
        wire: &mut Wire<'_>,
        actions: &mut Vec<Action>,
    ) {
        self.waits.purges = self.waits.purges.saturating_sub(1);
        let PurgeRequest { tag, immediate, .. } = request;
        self.respond(tag, immediate, wire);
        self.pump(wire, actions);
    }

    /// Aborts what has come, for whoever waits under this name.
    pub(super) fn abort(
        &mut self,
        drain: DrainId,
        but: Option<TaskId>,
        wire: &mut Wire<'_>,
        actions: &mut Vec<Action>,
    ) {
        let tasks = self.abort_released(but);
        self.wait(tasks, Then::Drained(drain), wire, actions);
        self.pump(wire, actions);
    }

    /// A command has ended.
    pub(super) fn settle(&mut self, id: TaskId, wire: &mut Wire<'_>, actions: &mut Vec<Action>) {
        for then in self.waits.settle(id) {
            self.conclude(then, wire, actions);
        }
    }

    fn wait(
        &mut self,
        tasks: BTreeSet<TaskId>,
        then: Then,
        wire: &mut Wire<'_>,
        actions: &mut Vec<Action>,
    ) {
        if tasks.is_empty() {
            self.conclude(then, wire, actions);
        } else {
            self.waits.waits.push(Wait { tasks, then });
        }
    }

    fn conclude(&mut self, then: Then, wire: &mut Wire<'_>, actions: &mut Vec<Action>) {
        match then {
            Then::Respond { tag, immediate } => self.respond(tag, immediate, wire),
            Then::Drained(drain) => {
                // The window has opened, and no answer will say so.
                self.tell_window(wire);
                actions.push(Action::Drained(drain));
            }
        }
    }

    fn respond(&mut self, tag: Tag, immediate: bool, wire: &mut Wire<'_>) {
        self.end_turn(immediate);
        let code = TaskResponseCode::Complete;
        self.send(wire, TaskResponse { tag, code }.pdu());
    }

    /// Aborts the commands whose turn has come: later ones are not of the task set yet. Returns
    /// those that are to be waited for.
    fn abort_released(&mut self, but: Option<TaskId>) -> BTreeSet<TaskId> {
        let released = self
            .tasks
            .iter()
            .filter(|(id, task)| task.turn.is_some() && Some(**id) != but);
        let ids: Vec<TaskId> = released.map(|(&id, _)| id).collect();
        ids.into_iter()
            .filter_map(|id| self.abort_one(id))
            .collect()
    }

    /// Aborts a command. It is returned when it executes and is to be waited for.
    fn abort_one(&mut self, id: TaskId) -> Option<TaskId> {
        let task = self.tasks.get_mut(&id)?;
        if matches!(task.stage, Stage::Gathering(_) | Stage::Dormant(_)) {
            self.remove(id);
            return None;
        }
        task.stage = Stage::Aborted;
        // The initiator may use the name again once it has the answer.
        if self.tags.get(&task.tag) == Some(&id) {
            self.tags.remove(&task.tag);
        }
        Some(id)
    }
}

/// Whether the LUN field names the one logical unit: in peripheral or flat addressing.
fn is_unit(lun: [u8; 8]) -> bool {
    let [method, rest @ ..] = lun;
    matches!(method, 0x00 | 0x40) && rest == [0; 7]
}
