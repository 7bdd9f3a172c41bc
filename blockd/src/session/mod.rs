//! The block protocol's server: connections, what their frames ask for, and the answers.
//!
//! Owns sockets and the threads that serve them: one per connection, which waits ([`connection`]),
//! has frames judged ([`phase`], [`request`], both pure) and carries them out in place
//! ([`execute`]); and a few disk threads for what would keep a connection waiting. Promises that
//! one connection at a time speaks for a replica and that an older epoch is refused on every frame
//! (INV-1), that a flush is answered after a sync that began after it came (INV-5), and that
//! connections, requests and waits are bounded (INV-12). Must not know the managers.
//!
//! The protocol is told in `docs/wire-format.md`.

mod connection;
mod disk_threads;
mod execute;
mod link;
mod outbox;
mod phase;
mod reader;
pub mod request;
mod server;
mod socket;

pub use link::{Denial, Detail};
pub use server::{Limits, ListenError, Server};
