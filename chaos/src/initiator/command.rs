//! What an initiator asks, and what it is answered.

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// READ (16) into the buffer.
    Read,
    /// WRITE (16) of the buffer.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// SYNCHRONIZE CACHE (16) of the whole unit.
    Flush,
}

/// A command to be sent.
#[derive(Debug)]
pub struct Command {
    /// Comes back with the completion.
    pub token: u64,
    /// What to do.
    pub kind: Kind,
    /// From which byte of the unit, a multiple of its sector.
    pub offset: u64,
    /// Data, or room for it, a multiple of the sector; empty for a flush.
    pub buffer: Vec<u8>,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// GOOD.
    Done,
    /// The target asks to come again: BUSY, TASK SET FULL, or a unit attention.
    Again(String),
    /// It failed, or the connection did.
    Failed(String),
}

/// A command that was answered.
#[derive(Debug)]
pub struct Completion {
    /// The command's.
    pub token: u64,
    /// The command's.
    pub kind: Kind,
    /// The command's.
    pub offset: u64,
    /// The command's, with the data of a read.
    pub buffer: Vec<u8>,
    /// What became of it.
    pub outcome: Outcome,
}
