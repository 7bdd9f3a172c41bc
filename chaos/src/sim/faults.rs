//! What goes wrong.

use std::time::Duration;

use ankole_blockd::disk::sim::Fate;
use rand::Rng;
use rand::rngs::StdRng;

use super::network::Way;

/// One fault. Hosts are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The blockd of a host is killed and comes back after a while.
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
    /// As `Takeover`, with the old engine reaching only this host and the new one all but it.
    Split(usize, Duration),
    /// A host with a replica loses its power for a moment, and the next engine reaches no other host
    /// for a while: all that it sees may have lost what was not flushed.
    Isolate(usize, Duration),
    /// The engine is asked to end in order.
    StopEngine,
    /// Nothing passes between the engine and a host for a while.
    Partition(usize, Duration),
    /// Only requests, or only replies, are lost between the engine and a host for a while.
    OneWay(usize, Way, Duration),
    /// A connection breaks.
    Break(usize),
    /// A host takes so much longer for everything, for a while.
    Slow(usize, Duration, Duration),
    /// The managers' leader is lost; another leads after a while.
    LoseManagers(Duration),
    /// An agent is killed and comes back after a while.
    KillAgent(usize, Duration),
    /// The managers and the daemons of a host hear nothing of each other for a while.
    Deafen(usize, Duration),
    /// A host's disk is full but for so many pages, for a while.
    FillDisk(usize, u64, Duration),
    /// All disks are, at once.
    FillAll(u64, Duration),
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
    match random.random_range(0..124) {
        0..12 => Fault::KillHost(host, span(random, 1, 4000)),
        12..22 => Fault::CutPower(host, span(random, 1000, 6000)),
        22..27 => Fault::CutAllPower(span(random, 1000, 4000)),
        27..31 => Fault::KillAll(span(random, 10, 3000)),
        31..40 => Fault::KillEngine,
        40..46 => Fault::Takeover,
        46..52 => Fault::Split(host, span(random, 1000, 9000)),
        112..118 => Fault::Split(host, span(random, 1000, 9000)),
        118..124 => Fault::Isolate(host, span(random, 500, 9000)),
        52..56 => Fault::StopEngine,
        56..62 => Fault::Partition(host, span(random, 10, 9000)),
        62..66 => Fault::OneWay(host, Way::ToHost, span(random, 10, 9000)),
        66..70 => Fault::OneWay(host, Way::ToEngine, span(random, 10, 9000)),
        70..76 => Fault::Break(host),
        76..82 => Fault::Slow(host, span(random, 1, 3000), span(random, 100, 8000)),
        82..88 => Fault::LoseManagers(span(random, 10, 6000)),
        88..94 => Fault::DiskError(cursed),
        94..98 => Fault::BitFlip(cursed),
        98..100 => Fault::FillDisk(host, random.random_range(0..24), span(random, 100, 4000)),
        100..102 => Fault::FillAll(random.random_range(0..24), span(random, 100, 4000)),
        102..107 => Fault::KillAgent(host, span(random, 10, 5000)),
        _ => Fault::Deafen(host, span(random, 100, 9000)),
    }
}

/// What a power cut does to what was not synced.
pub(super) fn fate(random: &mut StdRng) -> Fate {
    match random.random_range(0..8) {
        0..2 => Fate::Dropped,
        2..5 => Fate::Reordered,
        _ => Fate::Torn,
    }
}

/// When the next one strikes.
pub(super) fn pause(random: &mut StdRng) -> Duration {
    span(random, 50, 4000)
}
