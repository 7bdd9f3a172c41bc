//! Protocol data units (RFC 7143 §11): bytes to typed requests, typed responses to bytes.
//!
//! ```text
//! | 48 header | additional header segments | header CRC32C? | data, padded to 4 | data CRC32C? |
//! ```
//!
//! Nothing here keeps state; a data segment is a slice of what was received, never a copy.

pub mod frame;
mod header;
mod request;
mod response;
mod service;

pub use frame::{Digests, Frame, FrameError, Framing};
pub use header::{HEADER_BYTES, Header, InitiatorSessionId, Tag, TransferTag};
pub use request::{
    CommandPdu, DataOut, LoginRequest, LogoutReason, LogoutRequest, NopOut, Order, RequestError,
    RequestPdu, Stage, TaskFunction, TaskManagement, TextRequest,
};
pub use response::{
    DataIn, ReadyToTransfer, Residual, ResponsePdu, ScsiResponse, TaskResponse, TaskResponseCode,
};
pub use service::{
    AsyncMessage, LoginResponse, LogoutResponse, NopIn, Reject, RejectReason, TextResponse,
};

#[cfg(test)]
mod digest_tests;
#[cfg(test)]
mod tests;
