//! One manager as a process: its options, its directory, its server, its end.
//!
//! Owns the order in which the parts start and stop. Promises that a manager never runs on another
//! one's directory, and never under an id whose store was lost; that SIGTERM ends it within a few
//! seconds; and that SIGKILL costs nothing that was answered. Decides nothing about volumes.

mod directory;
mod options;
mod report;
mod serve;

pub use directory::{Directory, DirectoryError};
pub use options::{OptionsError, ServeArguments, ServeOptions};
pub use report::{ReportError, report};
pub use serve::{ServeError, serve};
