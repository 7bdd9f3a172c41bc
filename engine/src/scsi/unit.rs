//! The logical unit: takes commands in, hands answers out.

use std::collections::{BTreeMap, BTreeSet};

use ankole_proto::VolumeSize;
use bytes::Bytes;

use super::block;
use super::cdb::Cdb;
use super::command::{self, Access, Command};
use super::copy::Copies;
use super::handle::{After, Handled, Refusal, Step, Task};
use super::identity::Identity;
use super::inquiry;
use super::mode::Mode;
use super::nexus::{InitiatorPort, Nexus, NexusId};
use super::primary;
use super::reservation::Reservations;
use super::sanitize::{self, Sanitize};
use super::sense::{AdditionalSense, Sense, SenseKey};
use super::task::{Attribute, Begun, Done, Keep, Pending, Request, Status};
use crate::volume::Outcome;

/// What was reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// The logical unit (RFC 7143 11.5.1, LOGICAL UNIT RESET).
    LogicalUnit,
    /// The target, its sessions kept (TARGET WARM RESET).
    TargetWarm,
    /// The target, its sessions ended (TARGET COLD RESET).
    TargetCold,
}

/// The one logical unit of a volume's target, LUN 0.
#[derive(Debug)]
pub struct LogicalUnit {
    pub(super) identity: Identity,
    pub(super) size: VolumeSize,
    pub(super) nexuses: BTreeMap<NexusId, Nexus>,
    pub(super) mode: Mode,
    pub(super) reservations: Reservations,
    /// Who asked that the medium is not removed.
    pub(super) preventing: BTreeSet<NexusId>,
    pub(super) copies: Copies,
    pub(super) sanitize: Sanitize,
    /// Whether the last sanitize operation failed.
    pub(super) sanitize_failed: bool,
    /// Whether a [`Keep`] is on its way.
    pub(super) keeping: bool,
    /// Whether a session has something to be told since [`Self::take_news`].
    news: bool,
    /// Whether any nexus has been seen: the first ones are told of a power on.
    seen_any: bool,
}

impl LogicalUnit {
    /// The device of a volume, with its write cache on (`WCE=1`) or every write durable when
    /// acknowledged.
    pub fn new(identity: Identity, size: VolumeSize, write_cache: bool) -> Self {
        Self {
            identity,
            size,
            nexuses: BTreeMap::new(),
            mode: Mode::new(write_cache),
            reservations: Reservations::default(),
            preventing: BTreeSet::new(),
            copies: Copies::default(),
            sanitize: Sanitize::default(),
            sanitize_failed: false,
            keeping: false,
            news: false,
            seen_any: false,
        }
    }

    /// A session has logged in. It is told of a power on or of the loss of its predecessor with its
    /// first command.
    pub fn nexus_gained(&mut self, nexus: NexusId, port: InitiatorPort) {
        let mut gained = Nexus::new(port);
        gained.attend(if self.seen_any {
            AdditionalSense::NEXUS_LOSS
        } else {
            AdditionalSense::POWER_ON_OR_RESET
        });
        self.seen_any = true;
        // Its first command is told; no message is needed.
        gained.announce();
        self.nexuses.insert(nexus, gained);
    }

    /// A session is gone. Its persistent registration stays; its RESERVE and its PREVENT end
    /// (SAM-5 6.3.4).
    pub fn nexus_lost(&mut self, nexus: NexusId) {
        self.nexuses.remove(&nexus);
        self.preventing.remove(&nexus);
        self.reservations.release_legacy_of(nexus);
        self.copies.forget(nexus);
    }

    /// A reset was asked for. Every session is told; the commands in flight are `iscsi`'s to end.
    /// Persistent reservations stay (SPC-4 5.13.4), what RESERVE and PREVENT did ends.
    pub fn reset(&mut self, kind: Reset) {
        let attention = match kind {
            Reset::LogicalUnit => AdditionalSense::UNIT_RESET,
            Reset::TargetWarm => AdditionalSense::TARGET_RESET,
            Reset::TargetCold => AdditionalSense::POWER_ON_OR_RESET,
        };
        self.preventing.clear();
        self.reservations.release_legacy();
        self.mode.reset();
        self.copies = Copies::default();
        self.attend_all(attention);
    }

    /// The volume has another size from here on.
    pub fn set_size(&mut self, size: VolumeSize) {
        if self.size != size {
            self.size = size;
            self.attend_all(AdditionalSense::CAPACITY_CHANGED);
        }
    }

    /// Whether the volume has a write cache (`write_cache` of the volume) from here on. Without one
    /// every write is durable when it is acknowledged; what was cached before the change is for the
    /// caller to flush.
    pub fn set_write_cache(&mut self, write_cache: bool) {
        if self.mode.set_default_write_cache(write_cache) {
            self.attend_all(AdditionalSense::MODE_PARAMETERS_CHANGED);
        }
    }

    /// The size that is told.
    pub const fn size(&self) -> VolumeSize {
        self.size
    }

    /// The sense data of what a session is to be told and has not been sent a message about: `iscsi`
    /// sends it as an asynchronous message. The unit attention stays until a command is told.
    pub fn announce(&mut self, nexus: NexusId) -> Option<Bytes> {
        let attention = self.nexuses.get_mut(&nexus)?.announce()?;
        let sense = Sense::unit_attention(attention);
        Some(sense.encode(self.mode.sense_format()))
    }

    /// Tells one session, if it is there still.
    pub(super) fn attend(&mut self, nexus: NexusId, attention: AdditionalSense) {
        if let Some(nexus) = self.nexuses.get_mut(&nexus) {
            nexus.attend(attention);
            self.news = true;
        }
    }

    /// Whether some session has something to be told since the last call: see [`Self::announce`].
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    fn attend_all(&mut self, attention: AdditionalSense) {
        self.news = true;
        for nexus in self.nexuses.values_mut() {
            nexus.attend(attention);
        }
    }

    /// Tells all but one.
    pub(super) fn attend_others(&mut self, but: NexusId, attention: AdditionalSense) {
        for (id, nexus) in &mut self.nexuses {
            if *id != but {
                self.news = true;
                nexus.attend(attention);
            }
        }
    }

    /// Takes a command.
    pub fn begin(&mut self, request: Request) -> Begun {
        let task = Task {
            nexus: request.nexus,
            cdb: Cdb::new(request.cdb),
            data_out: request.data_out,
            expected_bytes: request.expected_bytes,
        };
        let handled = if is_impossible(request.attribute) {
            Err(Sense::illegal(AdditionalSense::INVALID_MESSAGE).into())
        } else if is_lun_0(request.lun) {
            self.handle(&task)
        } else {
            self.handle_absent(&task)
        };
        self.settle(task.nexus, handled)
    }

    /// Goes on with a command whose operations are done, with their outcomes in the order of the
    /// operations.
    pub fn resume(&mut self, pending: Pending, outcomes: Vec<Outcome>) -> Begun {
        let Pending {
            nexus,
            expected_outcomes,
            after,
            ..
        } = pending;
        let handled = if outcomes.len() == expected_outcomes {
            self.go_on(nexus, after, outcomes)
        } else {
            Err(internal_failure())
        };
        self.settle(nexus, handled)
    }

    fn go_on(&mut self, nexus: NexusId, after: After, outcomes: Vec<Outcome>) -> Handled {
        match after {
            After::Sanitized if self.sanitize_failed => Err(sanitize::failed()),
            // What it had not begun yet would be lost, or spoil what is being written.
            after if self.sanitize.is_running() && after.goes_on() => {
                self.sanitize_refusal().map_or(Ok(Step::Good), Err)
            }
            After::Copy(job) => job.resume(self, nexus, outcomes),
            after => block::resume(after, outcomes),
        }
    }

    pub(super) fn settle(&mut self, nexus: NexusId, handled: Handled) -> Begun {
        let mut done = Done {
            status: Status::Good,
            sense: Bytes::new(),
            data_in: Bytes::new(),
            abort: Vec::new(),
        };
        match handled {
            Ok(Step::Good) => {}
            Ok(Step::Data(data)) => done.data_in = data,
            Ok(Step::Keep(change)) => {
                self.keeping = true;
                let state = self.state_after(&change);
                return Begun::Keep(Keep {
                    nexus,
                    state,
                    change,
                });
            }
            Ok(Step::Run(operations, after)) => {
                return Begun::Pending(Pending {
                    nexus,
                    expected_outcomes: operations.len(),
                    operations,
                    after,
                });
            }
            Err(refusal) => {
                done.status = refusal.status;
                if let Some(sense) = refusal.sense {
                    done.sense = sense.encode(self.mode.sense_format());
                }
            }
        }
        Begun::Done(done)
    }

    fn sanitize_refusal(&self) -> Option<Refusal> {
        self.sanitize.refusal(self.size.bytes())
    }

    /// While the unit is being sanitized, and after that failed, only what tells of it goes on.
    fn check_sanitize(&self, cdb: &Cdb) -> Result<(), Refusal> {
        if primary::is_exempt_from_attention(cdb)
            || (cdb.opcode() == primary::SANITIZE && !self.is_sanitizing())
        {
            return Ok(());
        }
        self.sanitize_refusal().map_or(Ok(()), Err)
    }

    fn handle(&mut self, task: &Task) -> Handled {
        if !primary::is_exempt_from_attention(&task.cdb) {
            self.tell_attention(task.nexus)?;
        }
        self.check_sanitize(&task.cdb)?;
        let command = command::find(&task.cdb)?;
        command.check_usage(&task.cdb)?;
        self.check_access(task, command)?;
        (command.handler)(self, task)
    }

    fn tell_attention(&mut self, nexus: NexusId) -> Result<(), Refusal> {
        let nexus = self.nexuses.get_mut(&nexus).ok_or(internal_failure())?;
        match nexus.take_attention() {
            Some(attention) => Err(Sense::unit_attention(attention).into()),
            None => Ok(()),
        }
    }

    fn check_access(&self, task: &Task, command: &Command) -> Result<(), Refusal> {
        if !self.reservations.is_idle() {
            let port = self.nexuses.get(&task.nexus).map(|nexus| &nexus.port);
            if !self
                .reservations
                .permit(task.nexus, port, command, &task.cdb)
            {
                return Err(Refusal::CONFLICT);
            }
        }
        let keeps = command.access == Access::Reserving || command.opcode() == primary::SANITIZE;
        if self.keeping && keeps {
            return Err(Refusal::BUSY);
        }
        if command.access == Access::Writing && self.mode.is_write_protected() {
            return Err(Sense::new(
                SenseKey::DataProtect,
                AdditionalSense::SOFTWARE_WRITE_PROTECTED,
            )
            .into());
        }
        Ok(())
    }

    /// A command to a LUN that does not exist (SPC-4 6.6.2, SAM-5 4.8).
    fn handle_absent(&mut self, task: &Task) -> Handled {
        match task.cdb.opcode() {
            primary::INQUIRY => {
                command::find(&task.cdb)?.check_usage(&task.cdb)?;
                inquiry::inquiry_absent(self, task)
            }
            primary::REPORT_LUNS => {
                command::find(&task.cdb)?.check_usage(&task.cdb)?;
                primary::report_luns(self, task)
            }
            primary::REQUEST_SENSE => {
                command::find(&task.cdb)?.check_usage(&task.cdb)?;
                primary::request_sense_absent(task)
            }
            _ => Err(Sense::illegal(AdditionalSense::LOGICAL_UNIT_NOT_SUPPORTED).into()),
        }
    }
}

/// LUN 0 by peripheral device or by flat space addressing (SAM-5 4.7.7).
fn is_lun_0(lun: [u8; 8]) -> bool {
    const FLAT_SPACE: u8 = 0x40;
    lun[1..] == [0; 7] && (lun[0] == 0 || lun[0] == FLAT_SPACE)
}

/// There is no auto contingent allegiance that the first would belong to (SAM-5 8.6.5).
const fn is_impossible(attribute: Attribute) -> bool {
    matches!(
        attribute,
        Attribute::ContingentAllegiance | Attribute::Reserved
    )
}

/// Our own mistake; the initiator tries again.
fn internal_failure() -> Refusal {
    Sense::new(
        SenseKey::AbortedCommand,
        AdditionalSense::INTERNAL_TARGET_FAILURE,
    )
    .into()
}
