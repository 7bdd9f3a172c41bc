//! One session and its one connection, as a state machine: PDUs, ended commands and the time go in;
//! bytes to send and [`Action`]s come out. Knows no socket, no clock and no randomness.
//!
//! ```text
//! Login ──last request──▶ Admitting ──admitted──▶ Feature ──logout, fault──▶ Closing
//!   └──────refused, malformed─────────┴──refused──────────────────────────────▲
//! ```
//! A command passes `window` (its turn), `transfer` (its data), admission (memory, INV-12) and
//! [`Action::Execute`]; [`Session::finish`] turns what SCSI answered into PDUs. A command that is
//! aborted while it executes is drained: nothing of it is answered, and what asked for the abort is
//! answered when its last operation has ended.

mod action;
mod admission;
mod answer;
mod feature;
mod liveness;
mod management;
mod order;
mod sending;
mod task;
mod text;

use std::rc::Rc;

use super::limit;
use super::login::{Entropy, Established, Login, Refusal, SessionKind, Target};
use super::output::Output;
use super::pdu::{
    AsyncMessage, Digests, Frame, Framing, LoginRequest, LoginResponse, Reject, RejectReason,
    RequestPdu,
};
use super::sequence::Serial;
use crate::scsi::{Done, NexusId};
use crate::volume::Moment;
pub use action::{Action, DrainId, Ending, PurgeRequest};
use feature::Feature;
use liveness::Liveness;
pub use task::TaskId;

#[derive(Debug)]
enum Phase {
    Login(Box<Login>),
    Admitting(Box<Admission>),
    Feature(Box<Feature>),
    Closing,
}

/// The last login response, held until the session is admitted.
#[derive(Debug)]
struct Admission {
    response: LoginResponse,
    established: Established,
}

/// A connection and, once it has logged in, its session.
#[derive(Debug)]
pub struct Session {
    target: Rc<Target>,
    phase: Phase,
    output: Output,
    /// StatSN.
    status: Serial,
    liveness: Liveness,
}

impl Session {
    /// A connection has been accepted.
    pub fn new(target: Rc<Target>, entropy: Entropy, now: Moment) -> Self {
        Self {
            phase: Phase::Login(Box::new(Login::new(target.clone(), entropy))),
            target,
            output: Output::default(),
            status: Serial::from_raw(1),
            liveness: Liveness::new(now),
        }
    }

    /// How the stream is to be read from here on; may change with each PDU.
    pub fn framing(&self) -> Framing {
        match &self.phase {
            Phase::Feature(feature) => Framing {
                digests: feature.digests(),
                segment_bytes_max: limit::RECEIVE_SEGMENT_BYTES,
            },
            _ => Framing {
                digests: Digests::default(),
                segment_bytes_max: limit::LOGIN_SEGMENT_BYTES,
            },
        }
    }

    /// Whether PDUs may be handed in now; while a login waits for admission they may not.
    pub fn listens(&self) -> bool {
        matches!(self.phase, Phase::Login(_) | Phase::Feature(_))
    }

    /// What waits to be sent.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// That many bytes have been sent: commands that waited for memory may go on.
    pub fn sent(&mut self, bytes: usize, actions: &mut Vec<Action>) {
        self.output.advance(bytes);
        if let Phase::Feature(feature) = &mut self.phase {
            let mut wire = wire(&mut self.output, &mut self.status);
            feature.pump(&mut wire, actions);
        }
    }

    /// A PDU has come.
    pub fn receive(&mut self, frame: Frame, now: Moment, actions: &mut Vec<Action>) {
        self.liveness.heard(now);
        let header = frame.header;
        if !frame.data_intact {
            // Without recovery the data is lost, and with it the command's place in the order.
            self.reject(RejectReason::DataDigest, header);
            return self.close(Ending::DataDigest, actions);
        }
        match RequestPdu::parse(frame) {
            Ok(request) => self.dispatch(request, header, actions),
            Err(_) if matches!(self.phase, Phase::Login(_)) => {
                self.close(Ending::Refused(Refusal::NotLogin), actions);
            }
            Err(super::pdu::RequestError::Opcode(_)) => {
                self.reject(RejectReason::CommandNotSupported, header);
            }
            Err(super::pdu::RequestError::Field) => self.reject(RejectReason::InvalidField, header),
        }
    }

    /// The stream cannot be read on.
    pub fn malformed(&mut self, error: super::pdu::FrameError, actions: &mut Vec<Action>) {
        self.close(Ending::Malformed(error), actions);
    }

    /// The session may begin under this handle and nexus.
    pub fn admit(&mut self, tsih: u16, nexus: NexusId) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closing);
        let Phase::Admitting(admission) = phase else {
            self.phase = phase;
            return;
        };
        let Admission {
            mut response,
            established,
        } = *admission;
        response.tsih = tsih;
        self.send_login(response, established.command);
        let feature = Feature::new(self.target.clone(), established, nexus);
        self.phase = Phase::Feature(Box::new(feature));
    }

    /// The session may not begin.
    pub fn refuse(&mut self, refusal: Refusal, actions: &mut Vec<Action>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Closing);
        if let Phase::Admitting(admission) = phase {
            let mut response = admission.response;
            response.transit = None;
            response.text = Vec::new();
            response.status = refusal as u16;
            self.send_login(response, admission.established.command);
        }
        self.close(Ending::Refused(refusal), actions);
    }

    /// Whether a command that executes is still wanted: not aborted, its session alive.
    pub fn wants(&self, task: TaskId) -> bool {
        matches!(&self.phase, Phase::Feature(feature) if feature.wants(task))
    }

    /// A command ended so. Nothing is sent when it was aborted.
    pub fn finish(&mut self, task: TaskId, done: Done, actions: &mut Vec<Action>) {
        if let Phase::Feature(feature) = &mut self.phase {
            let mut wire = wire(&mut self.output, &mut self.status);
            feature.finish(task, done, &mut wire, actions);
        }
    }

    /// A command that was aborted has no operation in flight any more.
    pub fn drop_task(&mut self, task: TaskId, actions: &mut Vec<Action>) {
        if let Phase::Feature(feature) = &mut self.phase {
            let mut wire = wire(&mut self.output, &mut self.status);
            feature.drop_task(task, &mut wire, actions);
        }
    }

    /// Aborts the commands that have come, but for one; answered with [`Action::Drained`] unless
    /// the session ends before: its driver drains what executes before it reports it as gone.
    pub fn abort(&mut self, drain: DrainId, but: Option<TaskId>, actions: &mut Vec<Action>) {
        if let Phase::Feature(feature) = &mut self.phase {
            let mut wire = wire(&mut self.output, &mut self.status);
            feature.abort(drain, but, &mut wire, actions);
        }
    }

    /// The commands of all sessions that were to be aborted have ended.
    pub fn purged(&mut self, request: PurgeRequest, actions: &mut Vec<Action>) {
        if let Phase::Feature(feature) = &mut self.phase {
            let mut wire = wire(&mut self.output, &mut self.status);
            feature.purged(request, &mut wire, actions);
        }
        if request.closes {
            self.close(Ending::Reset, actions);
        }
    }

    /// Asks the initiator to log out.
    pub fn request_logout(&mut self, within_s: u16) {
        if let Phase::Feature(feature) = &self.phase {
            let mut wire = wire(&mut self.output, &mut self.status);
            feature.send(&mut wire, AsyncMessage::LogoutRequested { within_s }.pdu());
        }
    }

    /// Tells the initiator of a unit attention that waits for it (RFC 7143 §11.9.1, event 0).
    pub fn announce(&mut self, sense: &[u8]) {
        if let Phase::Feature(feature) = &self.phase {
            let mut wire = wire(&mut self.output, &mut self.status);
            feature.send(&mut wire, AsyncMessage::ScsiEvent { sense }.pdu());
        }
    }

    /// The nexus of a normal session in full feature phase.
    pub fn nexus(&self) -> Option<NexusId> {
        match &self.phase {
            Phase::Feature(feature) => feature.normal_nexus(),
            _ => None,
        }
    }

    /// Ends the session for a reason of the target's; the initiator is told when it may come back.
    pub fn end(&mut self, ending: Ending, actions: &mut Vec<Action>) {
        if let Phase::Feature(feature) = &self.phase
            && matches!(ending, Ending::Stopped | Ending::Reset)
        {
            let dropped = AsyncMessage::SessionDropped {
                wait_s: 0,
                retain_s: 0,
            };
            let mut wire = wire(&mut self.output, &mut self.status);
            feature.send(&mut wire, dropped.pdu());
        }
        self.close(ending, actions);
    }

    /// Time has passed: pings a silent initiator, ends a dead one and a login that never ends.
    pub fn tick(&mut self, now: Moment, actions: &mut Vec<Action>) {
        match &mut self.phase {
            Phase::Login(_) | Phase::Admitting(_) => {
                if self.liveness.login_is_late(now) {
                    self.close(Ending::LoginTimeout, actions);
                }
            }
            Phase::Feature(feature) => match self.liveness.check(now) {
                liveness::Verdict::Alive => {}
                liveness::Verdict::Ping => {
                    feature.ping(&mut wire(&mut self.output, &mut self.status));
                }
                liveness::Verdict::Dead => self.close(Ending::Dead, actions),
            },
            Phase::Closing => {}
        }
    }

    fn dispatch(
        &mut self,
        request: RequestPdu,
        header: super::pdu::Header,
        actions: &mut Vec<Action>,
    ) {
        match (&mut self.phase, request) {
            (Phase::Login(_), RequestPdu::Login(login)) => self.log_in(&login, actions),
            (Phase::Login(_), _) => self.close(Ending::Refused(Refusal::NotLogin), actions),
            (Phase::Feature(feature), request) => {
                let mut wire = wire(&mut self.output, &mut self.status);
                if let Some(ending) = feature.receive(request, header, &mut wire, actions) {
                    self.close(ending, actions);
                }
            }
            (Phase::Admitting(_) | Phase::Closing, _) => {}
        }
    }

    fn log_in(&mut self, request: &LoginRequest, actions: &mut Vec<Action>) {
        let Phase::Login(login) = &mut self.phase else {
            return;
        };
        match login.step(request) {
            Ok(step) => match step.established {
                Some(established) => {
                    self.phase = Phase::Admitting(Box::new(Admission {
                        response: step.response,
                        established: established.clone(),
                    }));
                    actions.push(Action::Admit(established));
                }
                None => self.send_login(step.response, request.command),
            },
            Err(refusal) => {
                self.send_login(Login::refuse(request, refusal), request.command);
                self.close(Ending::Refused(refusal), actions);
            }
        }
    }

    /// Login requests are immediate: the first command has the number that they name.
    fn send_login(&mut self, response: LoginResponse, command: Serial) {
        let max = command.plus(limit::COMMAND_WINDOW - 1);
        let pdu = response
            .pdu()
            .numbered(Some(self.status.take()), command, max);
        self.output.push(pdu, Digests::default());
    }

    fn reject(&mut self, reason: RejectReason, header: super::pdu::Header) {
        if let Phase::Feature(feature) = &self.phase {
            let mut wire = wire(&mut self.output, &mut self.status);
            feature.send(&mut wire, Reject { reason, header }.pdu());
        }
    }

    fn close(&mut self, ending: Ending, actions: &mut Vec<Action>) {
        self.phase = Phase::Closing;
        actions.push(Action::Close(ending));
    }
}

/// What sending needs, apart from the phase.
struct Wire<'a> {
    output: &'a mut Output,
    status: &'a mut Serial,
}

fn wire<'a>(output: &'a mut Output, status: &'a mut Serial) -> Wire<'a> {
    Wire { output, status }
}

/// Whether a session of this kind may send SCSI commands.
fn takes_commands(kind: SessionKind) -> bool {
    kind == SessionKind::Normal
}

#[cfg(test)]
mod tests;
