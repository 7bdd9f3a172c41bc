//! Stand-ins for the processes around an engine.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses a part of it"
)]

pub mod blockd;
pub mod fleet;
pub mod process;

use std::time::Duration;

/// How long anything that a test waits for may take.
pub const PATIENCE: Duration = Duration::from_secs(20);
