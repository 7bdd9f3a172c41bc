//! What happens to a mirror, and what it wants done.

use std::num::NonZeroU64;
use std::time::Duration;

use ankole_proto::wire::Frame;
use ankole_proto::wire::body::{OpenRequest, Opened};
use ankole_proto::{
    BlockNumber, Credential, Epoch, LayerId, NodeName, ReplicaAddress, ReplicaId, SnapshotId,
    VolumeId, VolumeSize,
};

use crate::volume::{Operation, OperationId, Outcome};

/// One connection to one replica. Never used again after it closed, so that what a dead connection
/// still delivers can be told from the living one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What the managers say of the volume: `EngineOrders` of the gRPC interface, checked and typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orders {
    /// Grows with each change; an older one than seen is ignored.
    pub revision: u64,
    /// The volume.
    pub volume: VolumeId,
    /// The newest epoch granted. Greater than the engine's own: it is fenced.
    pub epoch: Epoch,
    /// The volume's size.
    pub size: VolumeSize,
    /// The writable layer that every in-sync replica is to have.
    pub head: LayerId,
    /// The in-sync set and those being rebuilt.
    pub replicas: Vec<Member>,
    /// Opens the replicas.
    pub credential: Credential,
    /// To be done, in this order.
    pub tasks: Vec<Task>,
    /// The number of the comparison that is to be made and is not yet on record as made; 0: none.
    pub comparison: u64,
}

/// A replica as the managers have it on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// Its host.
    pub node: NodeName,
    /// Where to reach it; `None` while its blockd has not reported.
    pub address: Option<ReplicaAddress>,
    /// In sync, or being rebuilt.
    pub role: Role,
    /// What its blockd found damaged, to be repaired from another replica. Listed until its blockd
    /// has found it sound.
    pub damages: Vec<Damage>,
    /// Nothing of it was copied from another one since it was last found to be equal to all.
    pub independent: bool,
    /// Bytes per second that its rebuild may copy; `None`: no limit.
    pub rebuild_bytes_per_second: Option<NonZeroU64>,
}

/// A block that does not match its checksum, or cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Damage {
    /// The layer that holds the block.
    pub layer: LayerId,
    /// Where the block lies in the volume.
    pub block: BlockNumber,
}

/// What a replica of the orders is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// On record as holding every acknowledged write.
    InSync,
    /// Receives all writes and is being made equal.
    Rebuilding,
}

/// The managers' name for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// Something to be done once, between two moments of the volume's I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    /// Its name.
    pub id: TaskId,
    /// What it is.
    pub kind: TaskKind,
}

/// The kinds of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskKind {
    /// Take a snapshot: drain, flush, seal all in-sync and rebuilding replicas.
    Seal {
        /// The snapshot, for messages.
        snapshot: SnapshotId,
        /// To be sealed.
        head: LayerId,
        /// The empty one on top.
        new_head: LayerId,
        /// One of several volumes that are sealed as one cut: how far the group is.
        group: Option<GroupStage>,
    },
    /// Go back to a sealed layer; refused while initiators are logged in.
    Revert {
        /// To which.
        to: LayerId,
        /// The empty one on top.
        new_head: LayerId,
    },
    /// Grow every replica to this size, then the target.
    Expand {
        /// The new size.
        size: VolumeSize,
    },
}

/// How far a group of volumes is that are sealed as one consistent cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupStage {
    /// Drain, flush, and admit no mutation; `Status::held_task` says when that is so.
    Hold,
    /// All volumes of the group hold: seal. Refused by an engine that does not hold.
    Release,
}

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// A command wants this of the volume. Answered exactly once with [`Effect::Complete`].
    Submit {
        /// Its name.
        id: OperationId,
        /// What it wants.
        operation: Operation,
    },
    /// A link asked for with [`Effect::Connect`] is open: the replica obeys this engine's epoch.
    LinkOpened {
        /// Of which replica.
        replica: ReplicaId,
        /// Which link.
        link: LinkId,
        /// What it said.
        opened: Opened,
        /// When the Open frame was sent: the lease counts from here.
        sent_after_start: Duration,
    },
    /// A link is gone, or could not be had. No event of this link follows.
    LinkClosed {
        /// Of which replica.
        replica: ReplicaId,
        /// Which link.
        link: LinkId,
        /// Why.
        reason: LinkFailure,
    },
    /// A reply came.
    Reply {
        /// Of which replica.
        replica: ReplicaId,
        /// Over which link.
        link: LinkId,
        /// The frame, checked by the decoder.
        frame: Frame,
    },
    /// The managers' orders, new or repeated.
    Orders(Orders),
    /// A [`Effect::Record`] was carried out, or not.
    Recorded {
        /// Which.
        record: Record,
        /// What the managers said. `Unreachable` is given once the caller has tried every manager
        /// within its deadline; the mirror asks again.
        result: Result<Orders, RecordRefusal>,
    },
    /// How many initiators are logged in.
    Initiators(u32),
    /// Time has passed; sent at the latest at [`super::Mirror::wake_at`].
    Tick,
    /// End in order: take no more, drain, close every replica, then [`Effect::Stopped`].
    Stop,
}

/// Why a link closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkFailure {
    /// Connecting, sending or receiving failed, or a deadline passed; another try may succeed.
    Transport(String),
    /// The replica obeys a newer epoch: this engine has to end.
    Fenced(Epoch),
    /// The replica refused the Open for a reason that a retry does not mend.
    Refused(String),
}

/// Something the managers are asked to record under the engine's epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// INV-3: before any write that it missed is acknowledged.
    ReplicaLost {
        /// Which.
        replica: ReplicaId,
        /// For people.
        reason: String,
    },
    /// It has become equal.
    ReplicaInSync {
        /// Which.
        replica: ReplicaId,
    },
    /// A task is done on all in-sync replicas, or refused.
    TaskDone {
        /// Which.
        task: TaskId,
        /// Why it was refused; `None` when it is done.
        refusal: Option<String>,
    },
}

/// Why the managers did not record something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordRefusal {
    /// A newer engine exists.
    Fenced,
    /// It is the last in-sync replica (INV-4).
    LastInSync,
    /// The replica or task is not (or no longer) on record.
    Unknown,
    /// No manager answered in time; nothing is known.
    Unreachable(String),
}

/// What the mirror wants done. Effects are carried out in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Open a link; answered with `LinkOpened` or `LinkClosed`.
    Connect {
        /// To which replica.
        replica: ReplicaId,
        /// Its name from now on.
        link: LinkId,
        /// Where.
        address: ReplicaAddress,
        /// On which host, to choose between unix socket and TCP.
        node: NodeName,
        /// The first frame's body.
        open: OpenRequest,
    },
    /// Close a link at once; no event of it is wanted any more.
    Disconnect {
        /// Of which replica.
        replica: ReplicaId,
        /// Which link.
        link: LinkId,
    },
    /// Send a frame over an open link.
    Send {
        /// To which replica.
        replica: ReplicaId,
        /// Over which link.
        link: LinkId,
        /// The frame.
        frame: Frame,
    },
    /// An operation's outcome.
    Complete {
        /// Which.
        id: OperationId,
        /// What became of it.
        outcome: Outcome,
    },
    /// Ask the managers; answered with `Recorded`.
    Record(Record),
    /// The volume can be served (again): let initiators in.
    Serve,
    /// The volume is this large from now on.
    Resized(VolumeSize),
    /// Nothing is left to do: the process ends.
    Stopped(StopReason),
}

/// Why a mirror stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// [`Event::Stop`], and every replica closed in order.
    Closed,
    /// [`Event::Stop`], but some replicas could not be closed in order.
    ClosedPartly(String),
    /// A newer engine exists (INV-1).
    Fenced(Epoch),
}
