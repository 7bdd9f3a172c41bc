//! What an initiator sends (RFC 7143 §11.3, 11.5, 11.7, 11.10, 11.12, 11.14, 11.18).

use bytes::Bytes;
use thiserror::Error;

use super::frame::Frame;
use super::header::{Header, InitiatorSessionId, Tag, TransferTag};
use crate::iscsi::sequence::Serial;
use crate::scsi::Attribute;

pub(super) const NOP_OUT: u8 = 0x00;
pub(super) const COMMAND: u8 = 0x01;
pub(super) const TASK_MANAGEMENT: u8 = 0x02;
pub(super) const LOGIN: u8 = 0x03;
pub(super) const TEXT: u8 = 0x04;
pub(super) const DATA_OUT: u8 = 0x05;
pub(super) const LOGOUT: u8 = 0x06;
pub(super) const SNACK: u8 = 0x10;

const FINAL: u8 = 0x80;
const CONTINUE: u8 = 0x40;

/// Where a request stands among the session's commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Its number, or of an immediate one the next number.
    pub command: Serial,
    /// Executed at once, taking no number.
    pub immediate: bool,
}

/// A request, checked as far as one PDU alone can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestPdu {
    /// A ping, or the answer to one.
    NopOut(NopOut),
    /// A SCSI command.
    Command(CommandPdu),
    /// Something about tasks in progress.
    TaskManagement(TaskManagement),
    /// A step of a login.
    Login(LoginRequest),
    /// A negotiation in full feature phase.
    Text(TextRequest),
    /// Data of a write.
    DataOut(DataOut),
    /// The end of the session or connection.
    Logout(LogoutRequest),
    /// A request to send something again: never granted at error recovery level 0.
    Snack,
}

/// Why a PDU is no request; all are answered with a Reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RequestError {
    /// An opcode that no initiator sends.
    #[error("opcode {0:#04x} is not a request")]
    Opcode(u8),
    /// A field has a value that it may not have.
    #[error("a field of the request is invalid")]
    Field,
}

/// NOP-Out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NopOut {
    /// Where it stands.
    pub order: Order,
    /// [`Tag::NONE`] when no answer is wanted.
    pub tag: Tag,
    /// The ping it answers.
    pub transfer: TransferTag,
    /// Returned with the same field of the answer.
    pub lun: [u8; 8],
    /// Returned as it is.
    pub data: Bytes,
}

/// A SCSI command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandPdu {
    /// Where it stands.
    pub order: Order,
    /// The initiator's name for it.
    pub tag: Tag,
    /// No unsolicited data follows.
    pub is_final: bool,
    /// Data is expected.
    pub reads: bool,
    /// Data is sent.
    pub writes: bool,
    /// ATTR.
    pub attribute: Attribute,
    /// The logical unit.
    pub lun: [u8; 8],
    /// Expected data transfer length.
    pub expected_bytes: u32,
    /// The command descriptor block.
    pub cdb: [u8; 16],
    /// Immediate data.
    pub data: Bytes,
}

/// What a task management request wants (RFC 7143 §11.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskFunction {
    /// One task.
    AbortTask,
    /// All tasks of the session on the logical unit.
    AbortTaskSet,
    /// CLEAR ACA.
    ClearAca,
    /// All tasks on the logical unit.
    ClearTaskSet,
    /// Reset of the logical unit.
    UnitReset,
    /// Reset of all logical units; sessions stay.
    TargetWarmReset,
    /// Reset of all logical units; sessions end.
    TargetColdReset,
    /// Move a task to another connection: error recovery level 2.
    TaskReassign,
    /// None of these.
    Unknown(u8),
}

/// A task management request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskManagement {
    /// Where it stands.
    pub order: Order,
    /// The initiator's name for the request.
    pub tag: Tag,
    /// What.
    pub function: TaskFunction,
    /// On which logical unit.
    pub lun: [u8; 8],
    /// Which task, of [`TaskFunction::AbortTask`].
    pub referenced: Tag,
    /// That task's number.
    pub referenced_command: Serial,
}

/// A stage of the login phase (RFC 7143 §11.12.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Who is it.
    Security,
    /// Operational parameters.
    Operational,
    /// Login is over.
    FullFeature,
}

impl Stage {
    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        match bits & 3 {
            0 => Some(Self::Security),
            1 => Some(Self::Operational),
            3 => Some(Self::FullFeature),
            _ => None,
        }
    }

    pub(super) const fn bits(self) -> u8 {
        match self {
            Self::Security => 0,
            Self::Operational => 1,
            Self::FullFeature => 3,
        }
    }
}

/// A login request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRequest {
    /// The initiator's name for the login.
    pub tag: Tag,
    /// The next stage, when the initiator is ready to leave this one.
    pub transit: Option<Stage>,
    /// More text follows in the next request.
    pub continues: bool,
    /// The current stage.
    pub stage: Stage,
    /// The least version the initiator speaks.
    pub version_min: u8,
    /// The initiator's part of the session's name.
    pub isid: InitiatorSessionId,
    /// The target's part; 0 for a new session.
    pub tsih: u16,
    /// The connection's number in the session.
    pub connection: u16,
    /// The session's first command number.
    pub command: Serial,
    /// The text.
    pub text: Bytes,
}

/// A text request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRequest {
    /// Where it stands.
    pub order: Order,
    /// The initiator's name for it.
    pub tag: Tag,
    /// The initiator has nothing more to say.
    pub is_final: bool,
    /// The text goes on in the next request.
    pub continues: bool,
    /// [`TransferTag::NONE`] starts a negotiation.
    pub transfer: TransferTag,
    /// The text.
    pub text: Bytes,
}

/// Data of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataOut {
    /// Of which command.
    pub tag: Tag,
    /// Of which R2T; [`TransferTag::NONE`] when unsolicited.
    pub transfer: TransferTag,
    /// The last of its sequence.
    pub is_final: bool,
    /// Its place in the sequence.
    pub number: u32,
    /// Where in the command's data.
    pub offset: u32,
    /// The data.
    pub data: Bytes,
}

/// What is to end (RFC 7143 §11.14.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogoutReason {
    /// The session.
    CloseSession,
    /// A connection of it.
    CloseConnection,
    /// A connection whose tasks another is to take over: error recovery level 2.
    RemoveForRecovery,
}

/// A logout request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogoutRequest {
    /// Where it stands.
    pub order: Order,
    /// The initiator's name for it.
    pub tag: Tag,
    /// What.
    pub reason: LogoutReason,
    /// Which connection.
    pub connection: u16,
}

impl RequestPdu {
    /// Reads a PDU.
    pub fn parse(frame: Frame) -> Result<Self, RequestError> {
        let Frame { header, data, .. } = frame;
        match header.opcode() {
            NOP_OUT => nop_out(&header, data).map(Self::NopOut),
            COMMAND => command(&header, data).map(Self::Command),
            TASK_MANAGEMENT => task_management(&header).map(Self::TaskManagement),
            LOGIN => login(&header, data).map(Self::Login),
            TEXT => text(&header, data).map(Self::Text),
            DATA_OUT => data_out(&header, data).map(Self::DataOut),
            LOGOUT => logout(&header).map(Self::Logout),
            SNACK => Ok(Self::Snack),
            other => Err(RequestError::Opcode(other)),
        }
    }
}

fn order(header: &Header) -> Order {
    Order {
        command: header.serial::<24>(),
        immediate: header.is_immediate(),
    }
}

fn named(header: &Header) -> Result<Tag, RequestError> {
    Some(header.tag())
        .filter(|&tag| tag != Tag::NONE)
        .ok_or(RequestError::Field)
}

fn nop_out(header: &Header, data: Bytes) -> Result<NopOut, RequestError> {
    let nop = NopOut {
        order: order(header),
        tag: header.tag(),
        transfer: TransferTag(header.word::<20>()),
        lun: header.lun(),
        data,
    };
    // §11.18.1: one that wants no answer takes no number; it has to be immediate.
    if nop.tag == Tag::NONE && !nop.order.immediate {
        return Err(RequestError::Field);
    }
    Ok(nop)
}

fn command(header: &Header, data: Bytes) -> Result<CommandPdu, RequestError> {
    Ok(CommandPdu {
        order: order(header),
        tag: named(header)?,
        is_final: header.flags() & FINAL != 0,
        reads: header.flags() & 0x40 != 0,
        writes: header.flags() & 0x20 != 0,
        attribute: attribute(header.flags()),
        lun: header.lun(),
        expected_bytes: header.word::<20>(),
        cdb: header.array::<32, 16>(),
        data,
    })
}

/// RFC 7143 §11.3.1; an untagged command is like a simple one.
fn attribute(flags: u8) -> Attribute {
    match flags & 7 {
        0 | 1 => Attribute::Simple,
        2 => Attribute::Ordered,
        3 => Attribute::HeadOfQueue,
        4 => Attribute::ContingentAllegiance,
        _ => Attribute::Reserved,
    }
}

fn task_management(header: &Header) -> Result<TaskManagement, RequestError> {
    let function = match header.flags() & 0x7f {
        1 => TaskFunction::AbortTask,
        2 => TaskFunction::AbortTaskSet,
        3 => TaskFunction::ClearAca,
        4 => TaskFunction::ClearTaskSet,
        5 => TaskFunction::UnitReset,
        6 => TaskFunction::TargetWarmReset,
        7 => TaskFunction::TargetColdReset,
        8 => TaskFunction::TaskReassign,
        other => TaskFunction::Unknown(other),
    };
    Ok(TaskManagement {
        order: order(header),
        tag: named(header)?,
        function,
        lun: header.lun(),
        referenced: Tag(header.word::<20>()),
        referenced_command: header.serial::<32>(),
    })
}

fn login(header: &Header, text: Bytes) -> Result<LoginRequest, RequestError> {
    let flags = header.flags();
    let stage = Stage::from_bits(flags >> 2).ok_or(RequestError::Field)?;
    let continues = flags & CONTINUE != 0;
    let transit = match flags & FINAL != 0 {
        true => Some(Stage::from_bits(flags).ok_or(RequestError::Field)?),
        false => None,
    };
    let leads_on = transit.is_none_or(|next| next > stage);
    if stage == Stage::FullFeature || !leads_on || (continues && transit.is_some()) {
        return Err(RequestError::Field);
    }
    Ok(LoginRequest {
        tag: header.tag(),
        transit,
        continues,
        stage,
        version_min: header.0[3],
        isid: InitiatorSessionId(header.array::<8, 6>()),
        tsih: header.half::<14>(),
        connection: header.half::<20>(),
        command: header.serial::<24>(),
        text,
    })
}

fn text(header: &Header, text: Bytes) -> Result<TextRequest, RequestError> {
    let request = TextRequest {
        order: order(header),
        tag: named(header)?,
        is_final: header.flags() & FINAL != 0,
        continues: header.flags() & CONTINUE != 0,
        transfer: TransferTag(header.word::<20>()),
        text,
    };
    if request.is_final && request.continues {
        return Err(RequestError::Field);
    }
    Ok(request)
}

fn data_out(header: &Header, data: Bytes) -> Result<DataOut, RequestError> {
    Ok(DataOut {
        tag: named(header)?,
        transfer: TransferTag(header.word::<20>()),
        is_final: header.flags() & FINAL != 0,
        number: header.word::<36>(),
        offset: header.word::<40>(),
        data,
    })
}

fn logout(header: &Header) -> Result<LogoutRequest, RequestError> {
    let reason = match header.flags() & 0x7f {
        0 => LogoutReason::CloseSession,
        1 => LogoutReason::CloseConnection,
        2 => LogoutReason::RemoveForRecovery,
        _ => return Err(RequestError::Field),
    };
    Ok(LogoutRequest {
        order: order(header),
        tag: named(header)?,
        reason,
        connection: header.half::<20>(),
    })
}
