//! What is broken on purpose, to see that the checkers bite.
//!
//! The code under test carries no switches for this: what is broken is the layer around it. A host
//! that forgets to carry out a write stands for a replica store that does; managers that answer
//! before they commit stand for a Raft group that does; and so on.

use super::checker::Checker;

/// One thing that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// INV-1: hosts let engines of an older epoch in and obey them.
    ObeyAnyEpoch,
    /// INV-1: the managers grant the same epoch again.
    GrantTwice,
    /// INV-1, INV-5: disks drop what was synced when the power fails.
    DropSynced,
    /// INV-1: a host carries out what a dead connection still delivers.
    LateFrames,
    /// INV-2: one host acknowledges some writes without carrying them out.
    SkipWrites,
    /// INV-2: writes are acknowledged before the replicas have them.
    AcknowledgeEarly,
    /// INV-2: hosts tell nothing of what was in flight.
    ForgetInFlight,
    /// INV-2: hosts say `Clean` although they were killed.
    SayClean,
    /// INV-2: hosts say that only blockd restarted, after a power cut.
    SayRestarted,
    /// INV-3: the managers answer a loss before it is on record, and then forget it.
    ForgetLosses,
    /// INV-4: the managers drop whoever is down, the last one too.
    DropLast,
    /// INV-5: hosts answer flushes without syncing.
    IgnoreFlushes,
    /// INV-5: hosts take no notice of FUA.
    IgnoreFua,
    /// INV-6: a block of a sealed layer changes, with the right sum.
    RewriteSealed,
    /// INV-6: one host answers a seal without doing it.
    SkipSeals,
    /// INV-6: the managers have the wrong layer removed.
    RemoveWrongLayer,
    /// INV-6: hosts clone the layer below the one that they are told to clone.
    CloneBelow,
    /// A group of snapshots is released before all of its engines hold.
    ReleaseEarly,
    /// INV-2: a copy reads, and then writes, without its range locked in between.
    CopyUnlocked,
    /// INV-8: reads are answered past the mirror.
    ReadPastMirror,
    /// INV-8: hosts tell a new engine that no older one believes in its lease.
    ForgetLeases,
    /// INV-8: an engine is told that the one before it has ended, when it has not.
    AssumeEnded,
    /// INV-2: engines choose the first replica that answers, although it lost its power.
    ChooseHastily,
    /// INV-8: engines believe in a reply for half a minute.
    LongLeases,
    /// INV-9: the managers record a returning replica as in sync at once.
    PromoteAtOnce,
    /// INV-9: a host acknowledges copied chunks without taking them.
    SkipCopies,
    /// INV-9: a host says that its rebuild is finished when it is not.
    SkipFinish,
    /// INV-10: a failed sync is taken for a good one.
    IgnoreFailedSyncs,
    /// INV-13: a bit flips and its checksum agrees.
    FlipWithSum,
    /// INV-13: hosts do not tell which of their blocks are bad.
    HideDamages,
    /// INV-14: a block that cannot be read is answered with zeros.
    ZerosForErrors,
}

impl Mutation {
    /// All.
    pub const ALL: [Self; 31] = [
        Self::ObeyAnyEpoch,
        Self::GrantTwice,
        Self::DropSynced,
        Self::LateFrames,
        Self::SkipWrites,
        Self::AcknowledgeEarly,
        Self::ForgetInFlight,
        Self::SayClean,
        Self::SayRestarted,
        Self::ForgetLosses,
        Self::DropLast,
        Self::IgnoreFlushes,
        Self::IgnoreFua,
        Self::RewriteSealed,
        Self::SkipSeals,
        Self::RemoveWrongLayer,
        Self::CloneBelow,
        Self::ReleaseEarly,
        Self::CopyUnlocked,
        Self::ReadPastMirror,
        Self::ForgetLeases,
        Self::AssumeEnded,
        Self::ChooseHastily,
        Self::LongLeases,
        Self::PromoteAtOnce,
        Self::SkipCopies,
        Self::SkipFinish,
        Self::IgnoreFailedSyncs,
        Self::FlipWithSum,
        Self::HideDamages,
        Self::ZerosForErrors,
    ];

    /// The checkers of which one has to notice it.
    pub const fn noticed_by(self) -> &'static [Checker] {
        use Checker::{
            Acknowledged, Agreement, Blocks, Convergence, Cut, Epochs, Flushed, Liveness, Losses,
            Lost, Membership, Order, Rebuilding, Snapshots, Syncs, Zeros,
        };
        match self {
            Self::ObeyAnyEpoch => &[Epochs],
            Self::GrantTwice => &[Acknowledged, Lost, Zeros, Order, Epochs],
            Self::DropSynced => &[Epochs, Flushed],
            Self::LateFrames => &[Acknowledged, Lost, Zeros, Order, Convergence, Rebuilding],
            Self::ForgetLosses => &[Acknowledged, Losses],
            Self::SkipWrites | Self::AcknowledgeEarly | Self::CopyUnlocked => {
                &[Acknowledged, Lost, Zeros]
            }
            Self::ForgetInFlight | Self::SayClean | Self::SayRestarted => {
                &[Acknowledged, Lost, Zeros, Order, Flushed, Convergence]
            }
            Self::ChooseHastily => &[Lost, Zeros],
            Self::DropLast => &[Membership],
            Self::IgnoreFlushes | Self::IgnoreFua => &[Flushed],
            Self::RewriteSealed | Self::CloneBelow => &[Snapshots, Convergence, Zeros, Flushed],
            Self::SkipSeals => &[Convergence, Acknowledged, Liveness],
            Self::SkipCopies => &[Convergence, Acknowledged, Lost, Zeros, Flushed],
            Self::RemoveWrongLayer => &[Snapshots],
            Self::ReleaseEarly => &[Cut],
            Self::ReadPastMirror => &[Order, Lost],
            Self::ForgetLeases | Self::AssumeEnded => &[Order, Lost, Zeros, Flushed],
            Self::LongLeases => &[Order, Lost, Zeros, Flushed, Acknowledged, Convergence],
            Self::PromoteAtOnce => &[Acknowledged, Rebuilding, Flushed, Losses],
            Self::SkipFinish => &[Rebuilding],
            Self::IgnoreFailedSyncs => &[Syncs],
            Self::FlipWithSum => &[Blocks, Acknowledged, Convergence, Agreement],
            Self::HideDamages => &[Liveness],
            Self::ZerosForErrors => &[Zeros],
        }
    }
}
