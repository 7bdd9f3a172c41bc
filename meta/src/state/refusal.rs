//! Why a command is not carried out.

use ankole_proto::rpc::v1::LogRefusal;
use ankole_proto::{Epoch, NodeName, ReplicaId, SnapshotGroupId, SnapshotId, VolumeId};

use super::{GROUPS_MAX, PhaseKind, RESERVATIONS_BYTES_MAX, ReplicaMode};

/// Why a command is not carried out. The message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The command cannot be read: its proposer is wrong, or newer than this manager.
    #[error("{0}; upgrade all managers to one version")]
    Malformed(String),
    /// It can never succeed.
    #[error("{0}")]
    Invalid(String),
    /// No such volume.
    #[error("there is no volume {0}; list the volumes to see which there are")]
    NoVolume(VolumeId),
    /// No such snapshot.
    #[error("there is no snapshot {0}; list the snapshots to see which there are")]
    NoSnapshot(SnapshotId),
    /// The name of a volume is taken.
    #[error("a volume {0:?} exists; choose another name")]
    VolumeExists(String),
    /// The name of a snapshot is taken.
    #[error("the volume has a snapshot {0:?}; choose another name")]
    SnapshotExists(String),
    /// The request id stands for another call.
    #[error("request id {id:?} was used for {earlier}; use a new one for {call}")]
    RequestReused {
        /// The id.
        id: String,
        /// What it was used for.
        earlier: String,
        /// What it is to be used for now.
        call: &'static str,
    },
    /// The volume has changed since the caller looked.
    #[error("volume {volume:?} is at revision {is}, not {expected}; look at it again and decide")]
    StaleRevision {
        /// Which volume.
        volume: String,
        /// Its revision.
        is: u64,
        /// What the caller expected.
        expected: u64,
    },
    /// The volume's phase does not allow it.
    #[error("volume {volume:?} cannot be {act} while it is {phase}{}", advice(*phase))]
    WrongPhase {
        /// Which volume.
        volume: String,
        /// What was to be done to it: "attached".
        act: &'static str,
        /// What it is.
        phase: PhaseKind,
    },
    /// Attached elsewhere already.
    #[error(
        "volume {volume:?} is attached to node {node}; detach it first, or attach it by force when \
         that node does not answer any more"
    )]
    AttachedElsewhere {
        /// Which volume.
        volume: String,
        /// Where it is.
        node: NodeName,
    },
    /// Another volume's target has the port.
    #[error("port {port} of node {node} is taken by volume {volume:?}; try again")]
    PortTaken {
        /// Which port.
        port: u16,
        /// Of which node.
        node: NodeName,
        /// Who has it.
        volume: String,
    },
    /// An engine is not to run there.
    #[error("volume {volume:?} is not to run on node {node}: {why}")]
    NotHere {
        /// Which volume.
        volume: String,
        /// Where the engine would run.
        node: NodeName,
        /// Why not.
        why: String,
    },
    /// The caller knows an older or a newer epoch than the record.
    #[error("the volume's epoch is {is}, not {expected}; wait for new orders and ask again")]
    EpochMoved {
        /// On record.
        is: Epoch,
        /// What the caller expected.
        expected: Epoch,
    },
    /// A newer engine exists, or none is to run (INV-1).
    #[error("this engine's epoch {engine} has ended, the volume's is {current}; end the engine")]
    Fenced {
        /// The engine's.
        engine: Epoch,
        /// The volume's.
        current: Epoch,
    },
    /// The last in-sync replica stays on the record (INV-4).
    #[error("replica {0} is the last in-sync one and stays on record; hold I/O until it answers")]
    LastInSync(ReplicaId),
    /// The volume has no such replica.
    #[error("the volume has no replica {0}; look at the new orders")]
    UnknownReplica(ReplicaId),
    /// The volume has no such task.
    #[error("the volume has no task {0}; look at the new orders")]
    UnknownTask(u64),
    /// The replica's mode does not allow it.
    #[error("replica {replica} is {mode} and cannot become {wanted}; look at the new orders")]
    WrongMode {
        /// Which replica.
        replica: ReplicaId,
        /// What it is.
        mode: ReplicaMode,
        /// What it was to become.
        wanted: ReplicaMode,
    },
    /// A volume never shrinks.
    #[error(
        "volume {volume:?} has {is} bytes, or will have when it has grown, and cannot shrink to \
         {wanted}; choose a greater size"
    )]
    Shrinks {
        /// Which volume.
        volume: String,
        /// Its size.
        is: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// As many replicas as wanted, or not more than wanted.
    #[error("volume {volume:?} has {live} replicas of {wanted} wanted; look at it again")]
    Replicas {
        /// Which volume.
        volume: String,
        /// How many it has.
        live: usize,
        /// How many it is to have.
        wanted: u32,
    },
    /// The snapshot's state does not allow it.
    #[error("snapshot {name:?} cannot be {act}: {why}")]
    WrongSnapshot {
        /// Which snapshot.
        name: String,
        /// What was to be done.
        act: &'static str,
        /// Why not, and what to do.
        why: &'static str,
    },
    /// INV-7.
    #[error("volume {volume:?} has 254 sealed layers, the most there may be; delete a snapshot")]
    TooManySnapshots {
        /// Which volume.
        volume: String,
    },
    /// No such group of snapshots.
    #[error("there is no group of snapshots {0} under way; list the snapshots")]
    NoGroup(SnapshotGroupId),
    /// A group has failed.
    #[error("the group of snapshots {0:?} was undone; take it again")]
    GroupUndone(String),
    /// A volume is in a group more than once, or a snapshot id is.
    #[error("volume {0:?} is named twice; name each volume of the group once")]
    VolumeTwice(String),
    /// A group was to be released too early.
    #[error("volume {volume:?} of the group {group:?} does not hold under its newest epoch")]
    NotHeld {
        /// The group's name.
        group: String,
        /// Which volume.
        volume: String,
    },
    /// INV-12.
    #[error("{GROUPS_MAX} groups of snapshots are under way; wait until one is done")]
    TooManyGroups,
    /// Only small reservations are kept.
    #[error(
        "the reservations take {bytes} bytes, and at most {RESERVATIONS_BYTES_MAX} are kept; remove \
         registrations that nobody uses"
    )]
    ReservationsTooLarge {
        /// How many.
        bytes: usize,
    },
    /// The same engine has told of newer reservations.
    #[error("change {number} of the reservations comes after {newest}; it is void")]
    ReservationsStale {
        /// The change's.
        number: u64,
        /// The newest that is on record.
        newest: u64,
    },
    /// A clone is being created from it.
    #[error("{what} cannot be deleted: volume {clone:?} is being created from it; wait for that")]
    CloneUnderWay {
        /// What it is.
        what: String,
        /// The clone's name.
        clone: String,
    },
    /// What a clone was to share is not there any more, or not alike.
    #[error("the replicas of snapshot {0:?} have changed; try again")]
    SourceMoved(String),
    /// A clone cannot be made.
    #[error("{what} cannot be cloned: {why}")]
    NoClone {
        /// What it is.
        what: String,
        /// Why not, and what to do.
        why: String,
    },
    /// INV-12.
    #[error("too many tasks wait for volume {volume:?}; see whether its replicas can be reached")]
    TooManyTasks {
        /// Which volume.
        volume: String,
    },
}

const fn advice(phase: PhaseKind) -> &'static str {
    match phase {
        PhaseKind::Creating => "; wait until its replicas are stored",
        PhaseKind::Detached => "",
        PhaseKind::Attached => "; detach it first",
        PhaseKind::Detaching => "; wait until its engine has ended",
        PhaseKind::Deleting => "; it cannot come back",
    }
}

impl Refusal {
    /// The gRPC status code that says so.
    pub const fn code(&self) -> tonic::Code {
        use tonic::Code;
        match self {
            Self::Malformed(_) => Code::Unimplemented,
            Self::Invalid(_)
            | Self::RequestReused { .. }
            | Self::Shrinks { .. }
            | Self::VolumeTwice(_)
            | Self::ReservationsTooLarge { .. } => Code::InvalidArgument,
            Self::NoVolume(_) | Self::NoSnapshot(_) | Self::NoGroup(_) => Code::NotFound,
            Self::VolumeExists(_) | Self::SnapshotExists(_) => Code::AlreadyExists,
            Self::StaleRevision { .. } | Self::PortTaken { .. } | Self::SourceMoved(_) => {
                Code::Aborted
            }
            Self::TooManySnapshots { .. } | Self::TooManyTasks { .. } | Self::TooManyGroups => {
                Code::ResourceExhausted
            }
            Self::WrongPhase { .. }
            | Self::AttachedElsewhere { .. }
            | Self::NotHere { .. }
            | Self::EpochMoved { .. }
            | Self::Fenced { .. }
            | Self::LastInSync(_)
            | Self::UnknownReplica(_)
            | Self::UnknownTask(_)
            | Self::WrongMode { .. }
            | Self::Replicas { .. }
            | Self::GroupUndone(_)
            | Self::NotHeld { .. }
            | Self::ReservationsStale { .. }
            | Self::CloneUnderWay { .. }
            | Self::NoClone { .. }
            | Self::WrongSnapshot { .. } => Code::FailedPrecondition,
        }
    }

    /// Its name in the trailer `ankole-refusal`; empty when daemons need none.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Fenced { .. } => "fenced",
            Self::LastInSync(_) => "last-in-sync",
            Self::UnknownReplica(_) | Self::WrongMode { .. } => "unknown-replica",
            Self::UnknownTask(_) => "unknown-task",
            _ => "",
        }
    }

    /// As it stands in an answer.
    pub fn to_log(&self) -> LogRefusal {
        LogRefusal {
            code: code_number(self.code()),
            message: self.to_string(),
            kind: self.kind().to_owned(),
        }
    }
}

fn code_number(code: tonic::Code) -> u32 {
    u32::try_from(i32::from(code)).unwrap_or(2)
}
