//! What the target sends about the session: login, text, logout, NOP, messages and rejects
//! (RFC 7143 §11.9, 11.11, 11.13, 11.15, 11.17, 11.19).

use bytes::Bytes;

use super::header::{Header, InitiatorSessionId, Tag, TransferTag};
use super::request::Stage;
use super::response::{ResponsePdu, with_length};

const NOP_IN: u8 = 0x20;
const LOGIN_RESPONSE: u8 = 0x23;
const TEXT_RESPONSE: u8 = 0x24;
const LOGOUT_RESPONSE: u8 = 0x26;
const ASYNC_MESSAGE: u8 = 0x32;
const REJECT: u8 = 0x3f;

const FINAL: u8 = 0x80;
const CONTINUE: u8 = 0x40;

/// Login Response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginResponse {
    /// The login.
    pub tag: Tag,
    /// The stage to go to now.
    pub transit: Option<Stage>,
    /// More text follows when the initiator sends an empty request.
    pub continues: bool,
    /// The stage it belongs to.
    pub stage: Stage,
    /// As in the request.
    pub isid: InitiatorSessionId,
    /// The session's handle: set with the last response.
    pub tsih: u16,
    /// Status class and detail; 0 is success.
    pub status: u16,
    /// The text.
    pub text: Vec<u8>,
}

impl LoginResponse {
    /// For the wire.
    pub fn pdu(self) -> ResponsePdu {
        let mut flags = self.stage.bits() << 2;
        if let Some(next) = self.transit {
            flags |= FINAL | next.bits();
        }
        if self.continues {
            flags |= CONTINUE;
        }
        let mut header = Header::respond(LOGIN_RESPONSE, flags, self.tag);
        header.put::<8, 6>(self.isid.0);
        header.put_half::<14>(self.tsih);
        header.put_half::<36>(self.status);
        ResponsePdu::new(header, Bytes::from(self.text))
    }
}

/// Text Response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextResponse {
    /// The request.
    pub tag: Tag,
    /// [`TransferTag::NONE`] when the negotiation is over.
    pub transfer: TransferTag,
    /// More text follows.
    pub continues: bool,
    /// The text.
    pub text: Vec<u8>,
}

impl TextResponse {
    /// For the wire.
    pub fn pdu(self) -> ResponsePdu {
        let last = if self.transfer == TransferTag::NONE {
            FINAL
        } else {
            0
        };
        let more = if self.continues { CONTINUE } else { 0 };
        let mut header = Header::respond(TEXT_RESPONSE, last | more, self.tag);
        header.put_word::<20>(self.transfer.0);
        ResponsePdu::new(header, Bytes::from(self.text))
    }
}

/// Logout Response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogoutResponse {
    /// The request.
    pub tag: Tag,
    /// 0: closed. 1: no such connection. 2: recovery is not supported.
    pub code: u8,
}

impl LogoutResponse {
    /// For the wire.
    pub fn pdu(self) -> ResponsePdu {
        let mut header = Header::respond(LOGOUT_RESPONSE, FINAL, self.tag);
        header.0[2] = self.code;
        ResponsePdu::new(header, Bytes::new())
    }
}

/// NOP-In.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NopIn {
    /// The ping it answers, or [`Tag::NONE`].
    pub tag: Tag,
    /// Not [`TransferTag::NONE`]: an answer is wanted.
    pub transfer: TransferTag,
    /// As in the ping.
    pub lun: [u8; 8],
    /// As in the ping.
    pub data: Bytes,
}

impl NopIn {
    /// For the wire.
    pub fn pdu(self) -> ResponsePdu {
        let mut header = Header::respond(NOP_IN, FINAL, self.tag);
        header.put::<8, 8>(self.lun);
        header.put_word::<20>(self.transfer.0);
        ResponsePdu::new(header, self.data)
    }
}

/// Asynchronous Message (RFC 7143 §11.9.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsyncMessage<'sense> {
    /// The unit has something to tell.
    ScsiEvent {
        /// The sense data.
        sense: &'sense [u8],
    },
    /// Log out within this many seconds.
    LogoutRequested {
        /// How long the initiator has.
        within_s: u16,
    },
    /// All connections of the session are dropped; it may come back after `wait_s`.
    SessionDropped {
        /// How long to stay away.
        wait_s: u16,
        /// How long tasks are kept: not at all.
        retain_s: u16,
    },
}

impl AsyncMessage<'_> {
    /// For the wire.
    pub fn pdu(self) -> ResponsePdu {
        let mut header = Header::respond(ASYNC_MESSAGE, FINAL, Tag::NONE);
        match self {
            // Event 0, of LUN 0.
            Self::ScsiEvent { sense } => return ResponsePdu::new(header, with_length(sense)),
            Self::LogoutRequested { within_s } => {
                header.0[36] = 1;
                header.put_half::<42>(within_s);
            }
            Self::SessionDropped { wait_s, retain_s } => {
                header.0[36] = 3;
                header.put_half::<40>(wait_s);
                header.put_half::<42>(retain_s);
            }
        }
        ResponsePdu::new(header, Bytes::new())
    }
}

/// Why a PDU is rejected (RFC 7143 §11.17.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RejectReason {
    /// Its data does not match its digest.
    DataDigest = 0x02,
    /// A SNACK at error recovery level 0.
    Snack = 0x03,
    /// It breaks the protocol.
    Protocol = 0x04,
    /// Not a command of this target.
    CommandNotSupported = 0x05,
    /// Too many immediate commands.
    TooManyImmediate = 0x06,
    /// A field is invalid.
    InvalidField = 0x09,
    /// No room for another negotiation.
    NoResources = 0x0a,
}

/// Reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reject {
    /// Why.
    pub reason: RejectReason,
    /// The header of what is rejected.
    pub header: Header,
}

impl Reject {
    /// For the wire.
    pub fn pdu(self) -> ResponsePdu {
        let mut header = Header::respond(REJECT, FINAL, Tag::NONE);
        header.0[2] = self.reason as u8;
        ResponsePdu::new(header, Bytes::copy_from_slice(self.header.bytes()))
    }
}
