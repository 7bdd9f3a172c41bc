//! From a command's turn to its execution: memory, data, and what stands before it.

use super::feature::{Feature, next_transfer};
use super::task::{Stage, TaskId};
use super::{Action, Wire};
use crate::iscsi::limit;
use crate::iscsi::pdu::{ReadyToTransfer, TransferTag};
use crate::scsi::Request;

impl Feature {
    /// Admits the commands whose memory there is now, in their order.
    pub(super) fn pump(&mut self, wire: &mut Wire<'_>, actions: &mut Vec<Action>) {
        while let Some(&id) = self.waiting.front() {
            if let Some(task) = self.tasks.get_mut(&id) {
                let taken = self.admitted_bytes + wire.output.bytes();
                if taken + task.cost() > limit::SESSION_BYTES {
                    break;
                }
                self.admitted_bytes += task.cost();
                task.admitted = true;
            }
            self.waiting.pop_front();
            self.advance(id, wire, actions);
        }
        if self.set.has_dormant() {
            for id in self.set.dormant() {
                self.begin(id, actions);
            }
        }
    }

    /// Executes a command that has all its data, unless others have to end first.
    fn begin(&mut self, id: TaskId, actions: &mut Vec<Action>) {
        let Some(task) = self.tasks.get_mut(&id) else {
            return;
        };
        let first = task.goes_first();
        let (Some(turn), Stage::Dormant(data)) = (task.turn, &mut task.stage) else {
            return;
        };
        if !first && !self.set.may_begin(turn, task.attribute) {
            return self.set.suspend(turn, id);
        }
        self.set.wake(turn, id);
        let data_out = std::mem::take(data);
        task.stage = Stage::Executing;
        let request = Request {
            nexus: self.nexus,
            lun: task.lun,
            cdb: task.cdb,
            data_out,
            expected_bytes: task.expected_bytes,
            attribute: task.attribute,
        };
        actions.push(Action::Execute { task: id, request });
    }

    /// Asks for a command's data, or executes it when all is there.
    pub(super) fn advance(&mut self, id: TaskId, wire: &mut Wire<'_>, actions: &mut Vec<Action>) {
        let rules = self.parameters.rules;
        let Some(task) = self.tasks.get_mut(&id).filter(|task| task.admitted) else {
            return;
        };
        let Stage::Gathering(gather) = &mut task.stage else {
            return;
        };
        if gather.is_complete() {
            task.r2ts = gather.r2ts();
            if let Stage::Gathering(gather) = std::mem::replace(&mut task.stage, Stage::Executing) {
                task.stage = Stage::Dormant(gather.into_data());
            }
            return self.begin(id, actions);
        }
        let (tag, lun) = (task.tag, task.lun);
        let mut asked = Vec::new();
        while let Some(wanted) = gather.ask(&rules, TransferTag(self.next_transfer)) {
            asked.push(ReadyToTransfer {
                tag,
                lun,
                transfer: TransferTag(self.next_transfer),
                number: wanted.number,
                offset: wanted.offset,
                bytes: wanted.bytes,
            });
            self.next_transfer = next_transfer(self.next_transfer);
        }
        for r2t in asked {
            self.send_current(wire, r2t.pdu());
        }
    }
}
