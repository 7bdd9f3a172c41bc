//! The engine's and the agent's way to the managers: gRPC, on a thread that no write waits for.
//!
//! Owns the list of managers and the choice among them ([`Managers`]), the check of everything that
//! they say before it reaches pure code ([`orders`], [`refusal`]), and the control thread of an
//! engine ([`Control`]): heartbeats and records.
//!
//! Promises: a call ends within its deadline; a record is answered exactly once (INV-3 waits for
//! it); nothing of an answer is used unchecked. It decides nothing: that is the mirror's part.

mod address;
mod call;
mod control;
mod heartbeat;
mod keeper;
pub mod orders;
pub mod refusal;
mod settings;

pub use address::{ManagerAddress, ManagerAddressError};
pub use call::{CallError, Managers, Patience};
pub use control::{Control, ControlConfig, ControlError, ControlEvent};
pub use heartbeat::{EngineStatus, Rebuild, report};
pub use keeper::{Busy, Keeper};
pub use settings::Settings;
