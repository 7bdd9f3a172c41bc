//! How the engine's process ends, for whoever started it.

/// In order: every replica was closed.
pub const CLOSED: i32 = 0;
/// Something was wrong; the log and the record say what. May be started again.
pub const FAILED: i32 = 1;
/// Fenced by a newer engine: must not be started again under the same epoch.
pub const FENCED: i32 = 3;
