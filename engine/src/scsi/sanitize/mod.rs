//! SANITIZE (SBC-4 4.11, 5.36): makes what the volume held irretrievable through it.
//!
//! A sanitize operation belongs to the unit, not to the command or session that asked for it: it goes
//! on through aborts, resets and lost sessions, and begins anew when the engine restarts, for it is
//! part of the state that outlives the engine. While it goes on, and after it failed, every other
//! command is refused.
//!
//! ```text
//!          SANITIZE, kept              all written and flushed, kept
//!  Idle ─────────────────▶ Running ────────────────────────────────▶ Idle
//!   ▲                        │ ▲
//!   │ EXIT FAILURE MODE      │ └──── SANITIZE
//!   │ after AUSE=1           ▼ an operation failed, kept
//!   └────────────────────  Failed
//! ```
//!
//! BLOCK ERASE unmaps the whole volume, OVERWRITE writes a pattern over all of it. Snapshots keep what
//! they hold: they are deleted, not sanitized. There is no CRYPTOGRAPHIC ERASE, for nothing here is
//! encrypted.

mod request;
mod stored;
mod work;

use bytes::Bytes;

pub(super) use request::{block_erase, exit_failure_mode, overwrite};
pub(super) use stored::{read, write};
pub(super) use work::Work;

use super::handle::Refusal;
use super::sense::{AdditionalSense, Sense, SenseKey};
use crate::volume::Operation;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::scsi) struct Order {
    method: Method,
    /// AUSE: a failure may be left with EXIT FAILURE MODE.
    unrestricted: bool,
    /// The command is answered before it is done. Not stored.
    immediate: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Method {
    BlockErase,
    Overwrite(Overwrite),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Overwrite {
    /// 1 to 512 bytes, repeated in each logical block.
    pattern: Bytes,
    /// 1 to 31.
    passes: u8,
    /// From pass to pass.
    inverts: bool,
}

/// Whether the unit is being sanitized.
#[derive(Debug, Clone, Default)]
pub(super) enum Sanitize {
    #[default]
    Idle,
    Running(Work),
    Failed {
        unrestricted: bool,
    },
}

/// What the sanitize operation wants done next.
#[derive(Debug)]
pub enum SanitizeStep {
    /// There is none.
    Idle,
    /// These operations, with their outcomes for [`super::LogicalUnit::sanitize_outcomes`].
    Run(Vec<Operation>),
    /// It has ended once this state is durable: then [`super::LogicalUnit::sanitize_kept`].
    Keep(Bytes),
}

/// Whether the operations of a [`SanitizeStep::Run`] were carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SanitizeProgress {
    /// Go on.
    Advanced,
    /// The same again, after a while.
    Retry,
    /// The engine is stopping; the next one begins anew.
    Stopped,
}

impl Order {
    pub(super) const fn is_immediate(&self) -> bool {
        self.immediate
    }
}

impl Sanitize {
    /// Why commands are refused now.
    pub(super) fn refusal(&self, volume_bytes: u64) -> Option<Refusal> {
        match self {
            Self::Idle => None,
            Self::Running(work) => Some(in_progress(work.progress(volume_bytes)).into()),
            Self::Failed { .. } => Some(failed()),
        }
    }

    /// The sense that REQUEST SENSE tells.
    pub(super) fn sense(&self, volume_bytes: u64) -> Option<Sense> {
        match self {
            Self::Running(work) => Some(in_progress(work.progress(volume_bytes))),
            Self::Idle | Self::Failed { .. } => None,
        }
    }

    pub(super) const fn is_running(&self) -> bool {
        matches!(self, Self::Running(_))
    }
}

/// NOT READY, with how far it is.
fn in_progress(done: u16) -> Sense {
    Sense::new(SenseKey::NotReady, AdditionalSense::SANITIZE_IN_PROGRESS).with_progress(done)
}

/// MEDIUM ERROR: the last sanitize operation failed.
pub(super) fn failed() -> Refusal {
    Sense::new(SenseKey::MediumError, AdditionalSense::SANITIZE_FAILED).into()
}
