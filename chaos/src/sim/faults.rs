//! What goes wrong.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

/// One fault. Hosts are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The blockd is killed and comes back after a while.
    KillHost(usize, Duration),
    /// The host loses its power and comes back after a while.
    CutPower(usize, Duration),
    /// Every host and the engine lose their power at once.
    CutAllPower(Duration),
    /// Every process is killed at once.
    KillAll(Duration),
    /// The engine is killed; its agent sees it and starts another.
    KillEngine,
    /// Another engine is started although the last one lives.
    Takeover,
    /// Nothing passes between the engine and a host for a while.
    Partition(usize, Duration),
    /// A connection breaks.
    Break(usize),
    /// A host takes so much longer for everything, for a while.
    Slow(usize, Duration, Duration),
    /// The managers are out of reach for a while.
    LoseManagers(Duration),
    /// A snapshot is asked for.
    Snapshot,
    /// The disk of a host refuses one of its next calls.
    DiskError(usize),
    /// A bit of a host's data flips.
    BitFlip(usize),
}

fn span(random: &mut StdRng, from_ms: u64, to_ms: u64) -> Duration {
    Duration::from_micros(random.random_range(from_ms * 1000..to_ms * 1000))
}

/// A random fault. Disks err and rot on host `cursed` only: when all copies rot, nothing can help.
pub(super) fn next(random: &mut StdRng, hosts: usize, cursed: usize) -> Fault {
    let host = random.random_range(0..hosts);
    match random.random_range(0..100) {
        0..14 => Fault::KillHost(host, span(random, 1, 4000)),
        14..24 => Fault::CutPower(host, span(random, 1000, 6000)),
        24..28 => Fault::CutAllPower(span(random, 1000, 4000)),
        28..32 => Fault::KillAll(span(random, 10, 3000)),
        32..44 => Fault::KillEngine,
        44..52 => Fault::Takeover,
        52..60 => Fault::Partition(host, span(random, 10, 9000)),
        60..68 => Fault::Break(host),
        68..76 => Fault::Slow(host, span(random, 1, 3000), span(random, 100, 8000)),
        76..82 => Fault::LoseManagers(span(random, 100, 6000)),
        82..92 => Fault::Snapshot,
        92..96 => Fault::DiskError(cursed),
        _ => Fault::BitFlip(cursed),
    }
}

/// When the next one strikes.
pub(super) fn pause(random: &mut StdRng) -> Duration {
    span(random, 50, 4000)
}
