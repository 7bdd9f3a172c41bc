//! The states of a volume and of a replica, and which may follow which.

use std::fmt;

use ankole_proto::NodeName;

/// What a volume is meant to be doing.
///
/// ```text
/// Creating ──▶ Detached ◀──────────┐
///    │          │    │             │
///    │          │    ▼             │
///    │          │  Attached ◀▶ Detaching
///    ▼          ▼
///    Deleting ──▶ (gone)
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Waits for its first replicas.
    Creating,
    /// No target is wanted.
    Detached,
    /// A target is wanted there.
    Attached(NodeName),
    /// Its engine there is still to end.
    Detaching(NodeName),
    /// Its replicas are being deleted.
    Deleting,
}

impl Phase {
    /// Which phase, without the data.
    pub const fn kind(&self) -> PhaseKind {
        match self {
            Self::Creating => PhaseKind::Creating,
            Self::Detached => PhaseKind::Detached,
            Self::Attached(_) => PhaseKind::Attached,
            Self::Detaching(_) => PhaseKind::Detaching,
            Self::Deleting => PhaseKind::Deleting,
        }
    }

    /// The node that its target runs on or is still to end on.
    pub const fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Attached(node) | Self::Detaching(node) => Some(node),
            Self::Creating | Self::Detached | Self::Deleting => None,
        }
    }
}

/// A [`Phase`] without its data: what the table of transitions is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PhaseKind {
    /// [`Phase::Creating`].
    Creating,
    /// [`Phase::Detached`].
    Detached,
    /// [`Phase::Attached`].
    Attached,
    /// [`Phase::Detaching`].
    Detaching,
    /// [`Phase::Deleting`].
    Deleting,
}

impl PhaseKind {
    /// Every legal step.
    const LEGAL: [(Self, Self); 8] = [
        (Self::Creating, Self::Detached),
        (Self::Creating, Self::Deleting),
        (Self::Detached, Self::Attached),
        (Self::Detached, Self::Deleting),
        (Self::Attached, Self::Detaching),
        (Self::Detaching, Self::Detached),
        // By force: to another node.
        (Self::Attached, Self::Attached),
        (Self::Detaching, Self::Attached),
    ];

    /// Whether `next` may follow.
    pub fn may_become(self, next: Self) -> bool {
        Self::LEGAL.contains(&(self, next))
    }
}

impl fmt::Display for PhaseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "being created",
            Self::Detached => "detached",
            Self::Attached => "attached",
            Self::Detaching => "being detached",
            Self::Deleting => "being deleted",
        })
    }
}

/// What a replica is, on record.
///
/// ```text
/// Creating ─▶ InSync ◀── Rebuilding
///    │          │         │    ▲
///    └──────▶ OutOfSync ◀─┘    │
///                └─────────────┘
/// any ──▶ Deleting ──▶ (gone)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReplicaMode {
    /// To be stored, empty.
    Creating,
    /// Holds every acknowledged write (INV-2).
    InSync,
    /// Missed writes.
    OutOfSync,
    /// Receives all writes and is being made equal (INV-9).
    Rebuilding,
    /// To be removed from its disk.
    Deleting,
}

impl ReplicaMode {
    /// Every legal step.
    const LEGAL: [(Self, Self); 10] = [
        (Self::Creating, Self::InSync),
        (Self::Creating, Self::OutOfSync),
        (Self::InSync, Self::OutOfSync),
        (Self::Rebuilding, Self::OutOfSync),
        (Self::OutOfSync, Self::Rebuilding),
        (Self::Rebuilding, Self::InSync),
        (Self::Creating, Self::Deleting),
        (Self::OutOfSync, Self::Deleting),
        (Self::Rebuilding, Self::Deleting),
        // Only of a volume that is being deleted.
        (Self::InSync, Self::Deleting),
    ];

    /// Whether `next` may follow.
    pub fn may_become(self, next: Self) -> bool {
        Self::LEGAL.contains(&(self, next))
    }
}

impl fmt::Display for ReplicaMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "being created",
            Self::InSync => "in sync",
            Self::OutOfSync => "out of sync",
            Self::Rebuilding => "being rebuilt",
            Self::Deleting => "being deleted",
        })
    }
}
