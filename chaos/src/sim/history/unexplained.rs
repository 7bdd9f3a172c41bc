//! What no order of the operations explains.

use std::fmt;

use super::{Fate, Write, WriteId};

/// A sector that was read, or found in a snapshot or on a medium.
#[derive(Debug, Clone)]
pub(in super::super) enum Unexplained {
    /// It holds what nobody wrote there, or parts of several writes.
    MadeUp(String),
    /// It holds an engine's own write that the engine has not acknowledged.
    Unacknowledged(String),
    /// It holds something older than what was known to be in effect.
    Superseded(Box<Superseded>),
}

/// Something older than what was known to be in effect.
#[derive(Debug, Clone)]
pub(in super::super) struct Superseded {
    pub(super) sector: u64,
    pub(super) got: Option<(WriteId, Write)>,
    /// What is missed; `None` when that is only that nothing shows it.
    pub(super) missed: Option<(WriteId, Write)>,
}

impl Superseded {
    /// Whether the sector is zeros.
    pub(in super::super) const fn is_zeros(&self) -> bool {
        self.got.is_none()
    }

    /// Whether a flush or FUA had covered what is missed.
    pub(in super::super) fn was_durable(&self) -> bool {
        self.fate() == Some(Fate::Durable)
    }

    /// Whether what is missed had been acknowledged; otherwise an earlier read had shown it.
    pub(in super::super) fn was_acknowledged(&self) -> bool {
        matches!(self.fate(), Some(Fate::Acknowledged | Fate::Durable))
    }

    fn fate(&self) -> Option<Fate> {
        self.missed.as_ref().map(|(_, write)| write.fate)
    }
}

impl fmt::Display for Unexplained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MadeUp(text) | Self::Unacknowledged(text) => f.write_str(text),
            Self::Superseded(found) => {
                let Superseded {
                    sector,
                    got,
                    missed,
                } = found.as_ref();
                write!(f, "sector {sector}: lost {missed:?}, got {got:?}")
            }
        }
    }
}
