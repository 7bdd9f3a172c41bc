//! Connections between engines and hosts: in order within a connection and direction, late, and
//! broken at any moment, which each side notices in its own time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ankole_engine::mirror::event::LinkId;
use ankole_proto::{Epoch, ReplicaId};
use rand::Rng;
use rand::rngs::StdRng;

use super::engine::EngineId;

/// One connection of one engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LinkKey {
    pub(super) engine: EngineId,
    pub(super) link: LinkId,
    pub(super) replica: ReplicaId,
    /// Where the replica is.
    pub(super) host: usize,
    pub(super) epoch: Epoch,
}

/// A connection's state on the way.
#[derive(Debug, Default)]
struct Wire {
    /// When the last message of a direction arrives: no later one arrives before.
    to_host: Duration,
    to_engine: Duration,
}

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Network {
    wires: BTreeMap<LinkKey, Wire>,
    /// Between which engine and host nothing passes, and which way.
    cut: BTreeSet<(EngineId, usize, Way)>,
}

/// A direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    ToHost,
    ToEngine,
}

impl Way {
    pub(super) const BOTH: [Self; 2] = [Self::ToHost, Self::ToEngine];
}

const DELAY_MIN_US: u64 = 20;
const DELAY_MAX_US: u64 = 400;
/// One message in so many is late.
const LATE_ONE_IN: u32 = 200;
const LATE_MAX_US: u64 = 50_000;

/// How long a message takes.
pub(super) fn delay(random: &mut StdRng) -> Duration {
    let us = if random.random_ratio(1, LATE_ONE_IN) {
        random.random_range(DELAY_MAX_US..LATE_MAX_US)
    } else {
        random.random_range(DELAY_MIN_US..DELAY_MAX_US)
    };
    Duration::from_micros(us)
}

impl Network {
    /// Nothing passes between them, these ways, until [`Network::join`].
    pub(super) fn cut(&mut self, engine: EngineId, host: usize, ways: &[Way]) {
        self.cut.extend(ways.iter().map(|way| (engine, host, *way)));
    }

    /// Everything passes again between them.
    pub(super) fn join(&mut self, engine: EngineId, host: usize) {
        self.cut.retain(|cut| (cut.0, cut.1) != (engine, host));
    }

    /// Everything passes again.
    pub(super) fn join_all(&mut self) {
        self.cut.clear();
    }

    fn passes(&self, key: LinkKey, way: Way) -> bool {
        !self.cut.contains(&(key.engine, key.host, way))
    }

    /// A connection exists from now on.
    pub(super) fn connect(&mut self, key: LinkKey) {
        self.wires.insert(key, Wire::default());
    }

    /// Whether the connection is whole.
    pub(super) fn is_connected(&self, key: LinkKey) -> bool {
        self.wires.contains_key(&key)
    }

    /// A connection is gone; whether it was there.
    pub(super) fn disconnect(&mut self, key: LinkKey) -> bool {
        self.wires.remove(&key).is_some()
    }

    /// The connections for which `wanted` holds.
    pub(super) fn connections(&self, wanted: impl Fn(&LinkKey) -> bool) -> Vec<LinkKey> {
        self.wires
            .keys()
            .filter(|key| wanted(key))
            .copied()
            .collect()
    }

    /// When a message that leaves now reaches the host; `None` when it is lost.
    pub(super) fn reaches_host(
        &mut self,
        key: LinkKey,
        now: Duration,
        random: &mut StdRng,
    ) -> Option<Duration> {
        let delay = delay(random);
        let passes = self.passes(key, Way::ToHost);
        let wire = self.wires.get_mut(&key)?;
        wire.to_host = wire.to_host.max(now + delay);
        passes.then_some(wire.to_host)
    }

    /// When a message that leaves now reaches the engine; `None` when it is lost.
    pub(super) fn reaches_engine(
        &mut self,
        key: LinkKey,
        now: Duration,
        random: &mut StdRng,
    ) -> Option<Duration> {
        let delay = delay(random);
        let passes = self.passes(key, Way::ToEngine);
        let wire = self.wires.get_mut(&key)?;
        wire.to_engine = wire.to_engine.max(now + delay);
        passes.then_some(wire.to_engine)
    }
}
