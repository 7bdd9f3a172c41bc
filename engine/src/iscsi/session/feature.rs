//! Full feature phase: commands in their order, their data, and the memory they may take.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::management::Waits;
use super::order::TaskSet;
use super::task::{Stage, Task, TaskId};
use super::text::Exchange;
use super::{Action, Ending, Wire, takes_commands};
use crate::iscsi::limit;
use crate::iscsi::login::{Established, Parameters, SessionKind, Target};
use crate::iscsi::pdu::{
    CommandPdu, DataOut, Digests, Header, LogoutReason, LogoutRequest, LogoutResponse, NopIn,
    NopOut, Order, RejectReason, RequestPdu, Tag, TransferTag,
};
use crate::iscsi::transfer::TransferFault;
use crate::iscsi::window::{Arrival, Window};
use crate::scsi::{Attribute, Done, NexusId};

/// A logged-in session.
#[derive(Debug)]
pub(super) struct Feature {
    pub(super) target: Rc<Target>,
    pub(super) kind: SessionKind,
    pub(super) nexus: NexusId,
    connection: u16,
    pub(super) parameters: Parameters,
    pub(super) window: Window<Due>,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    /// The commands that the initiator can still name.
    pub(super) tags: BTreeMap<Tag, TaskId>,
    /// Those whose turn has come, but not their memory.
    pub(super) waiting: VecDeque<TaskId>,
    /// What admitted commands may take.
    pub(super) admitted_bytes: u64,
    next_task: u64,
    pub(super) next_transfer: u32,
    pub(super) exchange: Exchange,
    pub(super) waits: Waits,
    pub(super) set: TaskSet,
}

/// What waits for its turn in the order of command numbers.
#[derive(Debug)]
pub(super) enum Due {
    Task(TaskId),
    Other(RequestPdu, Header),
    /// It was answered before its turn; only its number is left to be given back.
    Answered(Order),
}

impl Feature {
    pub(super) fn new(target: Rc<Target>, established: Established, nexus: NexusId) -> Self {
        Self {
            target,
            kind: established.kind,
            nexus,
            connection: established.connection,
            parameters: established.parameters,
            window: Window::new(established.command, limit::COMMAND_WINDOW),
            tasks: BTreeMap::new(),
            tags: BTreeMap::new(),
            waiting: VecDeque::new(),
            admitted_bytes: 0,
            next_task: 0,
            next_transfer: 0,
            exchange: Exchange::default(),
            waits: Waits::default(),
            set: TaskSet::default(),
        }
    }

    pub(super) fn digests(&self) -> Digests {
        self.parameters.digests
    }

    pub(super) fn normal_nexus(&self) -> Option<NexusId> {
        takes_commands(self.kind).then_some(self.nexus)
    }

    pub(super) fn wants(&self, task: TaskId) -> bool {
        self.tasks
            .get(&task)
            .is_some_and(|task| matches!(task.stage, Stage::Executing))
    }

    /// A request has come. `Some`: the session ends.
    pub(super) fn receive(
        &mut self,
        request: RequestPdu,
        header: Header,
        wire: &mut Wire<'_>,
        actions: &mut Vec<Action>,
    ) -> Option<Ending> {
        let Some(order) = order_of(&request) else {
            self.receive_unordered(request, header, wire, actions);
            return None;
        };
        if !order.immediate && !self.window.accepts(order.command) {
            return None;
        }
        let turn = match request {
            RequestPdu::Command(command) => self.enlist(command, header, wire),
            other => Due::Other(other, header),
        };
        if order.immediate {
            return self.take_turn(turn, wire, actions);
        }
        let Arrival::InOrder(mut turn) = self.window.arrive(order.command, turn) else {
            return None;
        };
        loop {
            if let Some(ending) = self.take_turn(turn, wire, actions) {
                return Some(ending);
            }
            turn = self.window.take_next()?;
        }
    }

    /// Requests that take no number.
    fn receive_unordered(
        &mut self,
        request: RequestPdu,
        header: Header,
        wire: &mut Wire<'_>,
        actions: &mut Vec<Action>,
    ) {
        match request {
            RequestPdu::DataOut(data) => self.receive_data(data, wire, actions),
            RequestPdu::Snack => self.reject(RejectReason::Snack, header, wire),
            _ => self.reject(RejectReason::Protocol, header, wire),
        }
    }

    /// Takes a command's PDU into the table, whatever its turn.
    fn enlist(&mut self, pdu: CommandPdu, header: Header, wire: &mut Wire<'_>) -> Due {
        let immediates = self.tasks.values().filter(|task| task.immediate).count();
        let refusal = if !takes_commands(self.kind) {
            Some(RejectReason::CommandNotSupported)
        } else if self.tags.contains_key(&pdu.tag) {
            Some(RejectReason::Protocol)
        } else if pdu.order.immediate && immediates >= limit::IMMEDIATE_COMMANDS {
            Some(RejectReason::TooManyImmediate)
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.reject(reason, header, wire);
            return Due::Answered(pdu.order);
        }
        let order = pdu.order;
        let (task, result) = Task::begin(pdu, &self.parameters.rules);
        if let Err(fault) = result {
            self.answer_fault(&task, fault, wire);
            return Due::Answered(order);
        }
        let id = TaskId(self.next_task);
        self.next_task += 1;
        self.tags.insert(task.tag, id);
        self.tasks.insert(id, task);
        Due::Task(id)
    }

    fn take_turn(
        &mut self,
        turn: Due,
        wire: &mut Wire<'_>,
        actions: &mut Vec<Action>,
    ) -> Option<Ending> {
        match turn {
            Due::Answered(order) => self.end_turn(order.immediate),
            Due::Task(id) => {
                if let Some(task) = self.tasks.get_mut(&id) {
                    let attribute = match task.goes_first() {
                        true => Attribute::Simple,
                        false => task.attribute,
                    };
                    task.turn = Some(self.set.enter(attribute));
                    self.waiting.push_back(id);
                    self.pump(wire, actions);
                }
            }
            Due::Other(request, header) => return self.execute(request, header, wire, actions),
        }
        None
    }

    fn execute(
        &mut self,
        request: RequestPdu,
        header: Header,
        wire: &mut Wire<'_>,
        actions: &mut Vec<Action>,
    ) -> Option<Ending> {
        match request {
            RequestPdu::NopOut(nop) => self.echo(nop, wire),
            RequestPdu::Text(text) => self.negotiate(&text, header, wire),
            RequestPdu::TaskManagement(request) => self.manage(&request, header, wire, actions),
            RequestPdu::Logout(request) => return self.log_out(&request, wire),
            // These take no turn.
            RequestPdu::Command(_)
            | RequestPdu::Login(_)
            | RequestPdu::DataOut(_)
            | RequestPdu::Snack => {}
        }
        None
    }

    fn echo(&mut self, nop: NopOut, wire: &mut Wire<'_>) {
        self.end_turn(nop.order.immediate);
        if nop.tag == Tag::NONE {
            return;
        }
        let mut data = nop.data;
        data.truncate(self.parameters.send_segment_bytes as usize);
        let answer = NopIn {
            tag: nop.tag,
            transfer: TransferTag::NONE,
            lun: nop.lun,
            data,
        };
        self.send(wire, answer.pdu());
    }

    fn log_out(&mut self, request: &LogoutRequest, wire: &mut Wire<'_>) -> Option<Ending> {
        const CLOSED: u8 = 0;
        const NO_SUCH_CONNECTION: u8 = 1;
        const RECOVERY_NOT_SUPPORTED: u8 = 2;
        let code = match request.reason {
            LogoutReason::RemoveForRecovery => RECOVERY_NOT_SUPPORTED,
            LogoutReason::CloseConnection if request.connection != self.connection => {
                NO_SUCH_CONNECTION
            }
            LogoutReason::CloseConnection | LogoutReason::CloseSession => CLOSED,
        };
        self.end_turn(request.order.immediate);
        let tag = request.tag;
        self.send(wire, LogoutResponse { tag, code }.pdu());
        (code == CLOSED).then_some(Ending::LoggedOut)
    }

    fn receive_data(&mut self, data: DataOut, wire: &mut Wire<'_>, actions: &mut Vec<Action>) {
        // Data of a command that was aborted or answered is still on its way: it is dropped.
        let Some(&id) = self.tags.get(&data.tag) else {
            return;
        };
        let rules = self.parameters.rules;
        let Some(Task {
            stage: Stage::Gathering(gather),
            ..
        }) = self.tasks.get_mut(&id)
        else {
            return;
        };
        match gather.receive(&rules, data) {
            Ok(()) => self.advance(id, wire, actions),
            Err(fault) => self.fail(id, fault, wire, actions),
        }
    }

    fn fail(
        &mut self,
        id: TaskId,
        fault: TransferFault,
        wire: &mut Wire<'_>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(task) = self.remove(id) {
            self.answer_fault(&task, fault, wire);
            self.pump(wire, actions);
        }
    }

    pub(super) fn finish(
        &mut self,
        id: TaskId,
        done: Done,
        wire: &mut Wire<'_>,
        actions: &mut Vec<Action>,
    ) {
        let wanted = self.wants(id);
        if let Some(task) = self.remove(id) {
            if wanted {
                self.answer(&task, done, wire);
            }
            self.settle(id, wire, actions);
            self.pump(wire, actions);
        }
    }

    pub(super) fn drop_task(&mut self, id: TaskId, wire: &mut Wire<'_>, actions: &mut Vec<Action>) {
        if self.remove(id).is_some() {
            self.settle(id, wire, actions);
            self.pump(wire, actions);
        }
    }

    /// Takes a command off the table; its number is free again.
    pub(super) fn remove(&mut self, id: TaskId) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        if self.tags.get(&task.tag) == Some(&id) {
            self.tags.remove(&task.tag);
        }
        if let Some(turn) = task.turn {
            self.set.leave(turn, id);
        }
        if task.admitted {
            self.admitted_bytes = self.admitted_bytes.saturating_sub(task.cost());
        }
        self.end_turn(task.immediate);
        Some(task)
    }

    /// A request has been dealt with.
    pub(super) fn end_turn(&mut self, immediate: bool) {
        if !immediate {
            self.window.finish();
        }
    }
}

pub(super) fn next_transfer(transfer: u32) -> u32 {
    match transfer.wrapping_add(1) {
        u32::MAX => 0,
        next => next,
    }
}

/// Where a request stands; `None` of those that take no turn.
fn order_of(request: &RequestPdu) -> Option<Order> {
    match request {
        RequestPdu::NopOut(nop) => Some(nop.order),
        RequestPdu::Command(command) => Some(command.order),
        RequestPdu::TaskManagement(task) => Some(task.order),
        RequestPdu::Text(text) => Some(text.order),
        RequestPdu::Logout(logout) => Some(logout.order),
        RequestPdu::Login(_) | RequestPdu::DataOut(_) | RequestPdu::Snack => None,
    }
}
