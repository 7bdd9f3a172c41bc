//! The SCSI device of a volume: commands, sense, inquiry data, mode pages, reservations and copies
//! (SPC-4, SBC-3).
//!
//! A request is a typestate: a [`Request`] goes into [`LogicalUnit::begin`] and comes out as
//! [`Begun`]: either [`Done`]; or [`Pending`] on volume operations, whose outcomes go into
//! [`LogicalUnit::resume`], and so on until it is done; or [`Keep`], a change that takes effect with
//! [`LogicalUnit::kept`] once it is durable. `Pending` and `Keep` cannot be copied and are consumed,
//! so that no request is answered twice or forgotten.
//!
//! Owns what the device tells of itself and what it remembers: unit attentions, mode pages and
//! reservations. Promises that what REPORT SUPPORTED OPERATION CODES says is what is accepted (one
//! table drives both), that a WRITE with FUA or after `WCE=0` and SYNCHRONIZE CACHE reach the media
//! of every in-sync replica (INV-5), that what cannot be read is an error and never zeros (INV-14),
//! and that no command asks more than a bounded batch of operations at a time (INV-12). Must not
//! know of sockets, clocks or replicas.

mod block;
mod cdb;
mod command;
mod copy;
mod handle;
mod identity;
mod inquiry;
mod keep;
mod mode;
mod nexus;
mod opcodes;
mod primary;
mod reservation;
mod sanitize;
mod sense;
mod stored;
mod task;
mod unit;

#[cfg(test)]
mod tests;

pub use cdb::Cdb;
pub use command::{data_out_bytes, goes_first};
pub use identity::{DESIGNATOR_TEXT_BYTES_MAX, Identity, Naa};
pub use nexus::{InitiatorPort, NexusId};
pub use sanitize::{SanitizeProgress, SanitizeStep};
pub use sense::{AdditionalSense, Sense, SenseFormat, SenseKey};
pub use stored::{RestoreError, STATE_BYTES_MAX};
pub use task::{Attribute, Begun, Done, Keep, Pending, Request, Status};
pub use unit::{LogicalUnit, Reset};

/// The most bytes that one command moves, told as MAXIMUM TRANSFER LENGTH in VPD page B0.
pub const TRANSFER_BYTES_MAX: u32 = ankole_proto::wire::DATA_BYTES_MAX;
