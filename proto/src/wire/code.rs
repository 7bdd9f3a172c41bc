//! Operation and error codes.

use std::fmt;

/// What a frame asks for. The reply repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// First frame of a connection: fences every older epoch. Body: [`super::body::OpenRequest`],
    /// reply [`super::body::Opened`].
    Open = 1,
    /// Reads `length` bytes at `offset`; the reply's payload is the data.
    Read = 2,
    /// Writes the payload at `offset`; `flags::FUA` makes it durable before the reply.
    Write = 3,
    /// Unmaps the extent: it reads as zeros from now on and its space is given back.
    Unmap = 4,
    /// Zeroes the extent; as Unmap for whole blocks.
    WriteZeroes = 5,
    /// Everything acknowledged before is on the media when this is answered (INV-5).
    Flush = 6,
    /// Flushes, seals the head and puts a new empty head on it. Body: [`super::body::Seal`].
    Seal = 7,
    /// Puts a new empty head on a sealed layer. Body: [`super::body::Revert`].
    Revert = 8,
    /// The state of one layer's chunk at `offset`, to compare with a peer. Body:
    /// [`super::rebuild::LayerOf`], reply [`super::rebuild::ChunkDigest`]; or
    /// [`super::rebuild::ContentsOf`], reply [`super::rebuild::ContentsDigest`].
    Digest = 9,
    /// Blocks of one layer. Body: [`super::rebuild::LayerOf`], reply
    /// [`super::rebuild::LayerBlocks`].
    ReadLayer = 10,
    /// Sets blocks of one layer of a rebuilding replica. Body: [`super::rebuild::WriteLayer`].
    WriteLayer = 11,
    /// Orderly end: everything is flushed and the replica keeps no memory of writes in flight.
    Close = 12,
    /// Keeps the lease alive on an idle connection, and carries the watermark.
    Ping = 13,
    /// Makes the replica's layer tree equal to the source's and marks it rebuilding, durably.
    /// Body: [`super::rebuild::BeginRebuild`], reply [`super::cursor::RebuildCursor`]: what an
    /// earlier rebuild has made equal (a replica that keeps no such note answers without payload).
    BeginRebuild = 14,
    /// Syncs everything and marks the replica complete, durably.
    FinishRebuild = 15,
    /// Makes the replica at least as large as asked, durably; what is new reads as zeros. Body:
    /// [`super::body::Expand`].
    Expand = 16,
    /// Writes blocks of one layer of a healthy replica anew where the stored ones do not match
    /// their checksums or cannot be read; the others are left alone. The extent lies in one chunk.
    /// Body: [`super::rebuild::WriteLayer`] with the state that a healthy replica has there.
    RepairLayer = 17,
    /// Notes, durably, which sealed layers of a rebuilding replica are equal to the source's
    /// already: everything that was written to them is synced before the reply. Body:
    /// [`super::cursor::RebuildCursor`].
    MarkRebuilt = 18,
}

impl Opcode {
    /// Every operation, in code order.
    pub const ALL: [Self; 18] = [
        Self::Open,
        Self::Read,
        Self::Write,
        Self::Unmap,
        Self::WriteZeroes,
        Self::Flush,
        Self::Seal,
        Self::Revert,
        Self::Digest,
        Self::ReadLayer,
        Self::WriteLayer,
        Self::Close,
        Self::Ping,
        Self::BeginRebuild,
        Self::FinishRebuild,
        Self::Expand,
        Self::RepairLayer,
        Self::MarkRebuilt,
    ];

    /// The operation with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|opcode| opcode.code() == code)
    }

    /// Its code on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Whether it changes what the volume reads as, so that it carries a sequence number.
    pub const fn is_mutation(self) -> bool {
        matches!(self, Self::Write | Self::Unmap | Self::WriteZeroes)
    }
}

/// Why a request was not carried out: the `status` of a reply, 0 when it was. The payload of such
/// a reply is a message of at most [`ErrorCode::MESSAGE_BYTES_MAX`] bytes for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum ErrorCode {
    /// The replica has obeyed a newer epoch, which stands in the reply's `sequence` field.
    Fenced = 1,
    /// The credential is not the replica's.
    BadCredential = 2,
    /// This blockd has no such replica.
    NoSuchReplica = 3,
    /// The replica is of another volume.
    WrongVolume = 4,
    /// A request before Open, after Close, or a second Open.
    NotOpen = 5,
    /// The extent lies outside the volume, or is longer than an operation may be.
    OutOfRange = 6,
    /// The disk is full. Nothing was changed; reads and overwrites go on.
    NoSpace = 8,
    /// A block did not match its checksum: `offset` is that block's, `sequence` its layer's. Read it
    /// from another replica and repair it (INV-13).
    Checksum = 9,
    /// The disk refused; the replica is faulted.
    Io = 10,
    /// The replica was faulted before and serves nothing until it is rebuilt.
    Faulted = 11,
    /// The layer is not in the replica's tree.
    NoSuchLayer = 12,
    /// The replica's head or tree is not what the request expects.
    TreeConflict = 13,
    /// The replica is being rebuilt and serves no reads (INV-9).
    Rebuilding = 14,
    /// The frame decodes but makes no sense: misaligned, missing or surplus payload.
    Malformed = 15,
    /// The replica has 254 sealed layers (INV-7).
    TooManyLayers = 16,
    /// More requests at once than the protocol allows, or the daemon has too many connections.
    Overloaded = 17,
    /// The daemon is stopping.
    Stopping = 18,
}

impl ErrorCode {
    /// The longest message in a reply.
    pub const MESSAGE_BYTES_MAX: usize = 1024;

    /// Every code, in order.
    pub const ALL: [Self; 17] = [
        Self::Fenced,
        Self::BadCredential,
        Self::NoSuchReplica,
        Self::WrongVolume,
        Self::NotOpen,
        Self::OutOfRange,
        Self::NoSpace,
        Self::Checksum,
        Self::Io,
        Self::Faulted,
        Self::NoSuchLayer,
        Self::TreeConflict,
        Self::Rebuilding,
        Self::Malformed,
        Self::TooManyLayers,
        Self::Overloaded,
        Self::Stopping,
    ];

    /// The error with this code.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|error| error.code() == code)
    }

    /// Its code on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fenced => "fenced by a newer epoch",
            Self::BadCredential => "wrong credential",
            Self::NoSuchReplica => "no such replica",
            Self::WrongVolume => "replica of another volume",
            Self::NotOpen => "connection is not open",
            Self::OutOfRange => "out of range",
            Self::NoSpace => "disk full",
            Self::Checksum => "checksum mismatch",
            Self::Io => "disk error",
            Self::Faulted => "replica faulted",
            Self::NoSuchLayer => "no such layer",
            Self::TreeConflict => "layer tree differs",
            Self::Rebuilding => "replica is being rebuilt",
            Self::Malformed => "malformed request",
            Self::TooManyLayers => "254 sealed layers reached",
            Self::Overloaded => "too many requests",
            Self::Stopping => "daemon is stopping",
        })
    }
}
