//! One per node: starts, adopts, replaces and stops the engines that the managers want there.
//!
//! Owns the engines' processes and directories on its node. Level-triggered: every round looks at
//! what runs, compares it with the last orders ([`plan`], pure) and acts. An engine is started
//! under an epoch asked for just before (INV-1), lives on when the agent ends, and is adopted by
//! the next agent through the lock in its directory. An agent that cannot reach the managers leaves
//! everything as it is.
//!
//! It decides nothing about volumes: which engine runs where is the managers' to say.

mod args;
mod grant;
pub mod heartbeat;
pub mod plan;
mod process;
mod supervise;

pub use args::AgentArgs;
pub use supervise::{AgentError, run};
