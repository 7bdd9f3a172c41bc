//! What a SCSI command asks of the mirror, and what it is answered: the seam between `scsi` and
//! `mirror`. Pure data.

use std::time::Duration;

use ankole_proto::Extent;
use bytes::Bytes;

/// A moment on the engine's monotonic clock: the time since the process started. Pure code is
/// handed it and never asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Moment(Duration);

impl Moment {
    /// This long after the start.
    pub const fn after_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The time since the start.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// The time since an earlier moment; zero when it was not earlier.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

/// Names an operation between its submission and its outcome. Chosen by the submitter, unique
/// among the operations that it has in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub u64);

/// What is to be done to the volume. Extents lie inside the volume and are not empty; they need
/// not be aligned to more than a sector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Read the extent, at most [`ankole_proto::wire::DATA_BYTES_MAX`].
    Read {
        /// What to read.
        extent: Extent,
    },
    /// Write `data`, which is as long as the extent, at most
    /// [`ankole_proto::wire::DATA_BYTES_MAX`].
    Write {
        /// Where.
        extent: Extent,
        /// What.
        data: Bytes,
        /// Durable before it is answered.
        fua: bool,
    },
    /// Unmap the extent: it reads as zeros afterwards. Any length.
    Unmap {
        /// What to unmap.
        extent: Extent,
    },
    /// Zero the extent. Any length.
    WriteZeroes {
        /// What to zero.
        extent: Extent,
        /// Durable before it is answered.
        fua: bool,
    },
    /// Atomically: when the extent holds `expected`, write `data` there (SBC-3 COMPARE AND WRITE).
    CompareAndWrite {
        /// Where; as long as both buffers.
        extent: Extent,
        /// What must be there.
        expected: Bytes,
        /// What is written then.
        data: Bytes,
        /// Durable before it is answered.
        fua: bool,
    },
    /// Atomically: the bitwise OR of what the extent holds and `data` (SBC-3 ORWRITE).
    Or {
        /// Where; as long as the buffer.
        extent: Extent,
        /// The bits to set.
        data: Bytes,
        /// Durable before it is answered.
        fua: bool,
    },
    /// Atomically: what `from` holds is put on `to`, which is as long. Any length, and they may
    /// overlap: bytes are then taken in ascending order, a piece at a time. No write to either
    /// comes between (SPC-4 EXTENDED COPY).
    Copy {
        /// What is read.
        from: Extent,
        /// Where it is written.
        to: Extent,
        /// Durable before it is answered.
        fua: bool,
    },
    /// Everything acknowledged before is on the media of every in-sync replica (INV-5).
    Flush,
}

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is done. Of a read: the data.
    Done(Bytes),
    /// The compare failed at this byte of the extent; nothing was written.
    Miscompare {
        /// Counted from the start of the extent.
        first_difference: u64,
    },
    /// It was not done, or nobody can know whether it was.
    Failed(Failure),
}

/// Why an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No replica could return the data (INV-14): an unrecovered read error.
    #[error("no replica can return this data")]
    Unreadable,
    /// Every in-sync replica refused for lack of space; nothing was lost.
    #[error("the replicas' disks are full")]
    NoSpace,
    /// Every replica lost its power before a flush: acknowledged writes may be gone. Told once, to
    /// the flushes that would have covered them. A retry does not bring them back.
    #[error("writes that were not flushed may be gone with the replicas' power")]
    Lost,
    /// The replicas stayed away for longer than I/O is held; a retry may succeed.
    #[error("no replica can be reached")]
    Unavailable,
    /// This engine has been fenced, or is stopping; the initiator finds the volume again at the
    /// same target.
    #[error("the engine is stopping")]
    Stopping,
    /// More was in flight than the engine holds; a retry will succeed.
    #[error("too many operations in flight")]
    Busy,
}
