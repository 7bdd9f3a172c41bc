//! The iSCSI target (RFC 7143, error recovery level 0): sessions, login, digests, flow of data.
//!
//! Owns what happens between a TCP byte stream and a SCSI command. Everything here but `portal` is
//! pure: [`session::Session`] is handed PDUs, finished commands and the time, and answers with
//! bytes to send and [`session::Action`]s. [`portal`] is the one place with sockets: it
//! drives one session per connection, on one thread, without a hand-off.
//!
//! # Using it
//!
//! ```ignore
//! // All on one thread, inside a `tokio::task::LocalSet`.
//! let portal = Portal::new(Target { name, alias, address, chap }, unit, volume, keeper);
//! portal.on_initiators(|logged_in| …);               // called on each change
//! let serving = spawn_local({ let p = portal.clone(); async move { p.serve(listener).await } });
//! // Later, in order: no new connections, ask the initiators to log out, wait, close.
//! portal.stop(LOGOUT_WAIT).await;                     // `serve` returns
//! ```
//!
//! * `unit` is `Rc<RefCell<scsi::LogicalUnit>>`, `volume` is `Rc<dyn portal::Volume>`.
//! * [`portal::Volume::submit`] takes an operation and a [`portal::Completion`]; calling
//!   `completion.complete(outcome)` on the same thread wakes the connection that waits. A
//!   completion that is dropped answers `Failure::Stopping`, so no command is ever forgotten.
//! * `keeper` is `Rc<dyn portal::ReservationKeeper>`: it stores the unit's state durably, now or
//!   later; hand what was kept last to `LogicalUnit::restore` before serving.
//! * While it serves, [`portal::Portal::resize`], [`portal::Portal::set_chap`] and
//!   [`portal::Portal::set_write_cache`] change the target without a new login.
//! * [`portal::Volume::submitted`] is called once after each batch of `submit`: the place to send
//!   what has been collected.
//!
//! # Promises
//!
//! INV-12: per connection the bytes held (received, being executed and not yet sent) are bounded,
//! as are login text, commands in flight, held out-of-order commands, connections and every wait;
//! the limits stand in [`limit`]. No input makes it panic. CHAP secrets are never logged.
//!
//! Error recovery level 0 means: what cannot be understood gets a Reject where the RFC has one for
//! it, and otherwise the connection is closed and the initiator logs in again.

pub mod limit;
pub mod login;
mod output;
pub mod pdu;
pub mod portal;
pub mod sequence;
pub mod session;
pub mod text;
pub mod transfer;
pub mod window;
