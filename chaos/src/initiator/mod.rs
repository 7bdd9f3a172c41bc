//! An iSCSI initiator that shares no code with our target: libiscsi, wrapped so that the rest of
//! the crate sees sessions, commands and completions and no pointer.
//!
//! The only place in this crate that may hold `unsafe`.

mod command;
mod ffi;
mod reservation;
mod session;

pub use command::{Command, Completion, Kind, Outcome};
pub use reservation::Held;
pub use session::{ConnectError, Geometry, Options, Session};
