//! Reservations: the persistent kind (SPC-4 5.13), which belongs to initiator ports and outlives
//! sessions and engines, and the old RESERVE and RELEASE (SPC-2), which belong to a session.
//!
//! Promises that every change of the persistent state is handed out as bytes, takes effect once they
//! are kept, and that those bytes bring it back.

mod change;
mod legacy;
mod moving;
mod report;
mod request;
mod state;
mod stored;
mod transport;

pub(super) use change::ReservationChange;
pub(super) use legacy::{release, reserve};
pub(super) use moving::register_and_move;
pub(super) use report::{capabilities, full_status, read_keys, read_reservation};
pub(super) use request::{
    clear, preempt, preempt_and_abort, register, register_and_ignore,
    release as persistent_release, reserve as persistent_reserve,
};
pub(super) use state::Reservations;
pub(super) use stored::{read, write};
