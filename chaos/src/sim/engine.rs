//! One engine process: the real mirror core, and the operations that clients have at it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ankole_engine::mirror::event::{Effect, Event, LinkId};
use ankole_engine::mirror::{Mirror, MirrorConfig};
use ankole_engine::volume::{Moment, Operation, OperationId};
use ankole_proto::{Epoch, Extent, NodeName, ReplicaId};
use bytes::Bytes;

use super::history::WriteId;
use super::managers::Managers;
use super::mutation::Mutation;

/// Engines in the order in which they were started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct EngineId(pub(super) u64);

/// What a client waits for.
#[derive(Debug, Clone)]
pub(super) enum Waiting {
    Read {
        extent: Extent,
        begin: Duration,
    },
    Mutation {
        write: WriteId,
        durable: bool,
        extent: Extent,
    },
    Compare {
        write: WriteId,
        durable: bool,
        extent: Extent,
        expected: Bytes,
        begin: Duration,
    },
    Or,
    Flush {
        begin: Duration,
    },
}

/// A running engine.
pub(super) struct Engine {
    pub(super) id: EngineId,
    pub(super) epoch: Epoch,
    mirror: Mirror,
    started: Duration,
    pub(super) serving: bool,
    pub(super) waiting: BTreeMap<OperationId, Waiting>,
    next_operation: u64,
    /// It hears nothing from the managers.
    pub(super) deaf: bool,
    /// When a replica was last heard.
    heard: BTreeMap<ReplicaId, Duration>,
    /// Links whose opening it has heard of.
    opened: BTreeSet<LinkId>,
    /// The earliest tick that is scheduled.
    pub(super) tick_at: Option<Duration>,
}

impl Engine {
    pub(super) fn new(
        id: EngineId,
        node: NodeName,
        previous_ended: bool,
        managers: &Managers,
        now: Duration,
        open_grace: Duration,
        mutation: Option<Mutation>,
    ) -> Self {
        let epoch = managers.epoch;
        let mut config = MirrorConfig::new(epoch, node);
        config.previous_engine_ended = previous_ended;
        config.limits.open_grace = open_grace;
        if mutation == Some(Mutation::LongLeases) {
            config.limits.lease = Duration::from_secs(30);
        }
        if mutation == Some(Mutation::ChooseHastily) {
            config.limits.forgetful_grace = Duration::ZERO;
        }
        let mirror = Mirror::new(config, managers.orders());
        Self {
            id,
            epoch,
            mirror,
            started: now,
            serving: false,
            waiting: BTreeMap::new(),
            next_operation: 1,
            deaf: false,
            heard: BTreeMap::new(),
            opened: BTreeSet::new(),
            tick_at: None,
        }
    }

    fn moment(&self, now: Duration) -> Moment {
        Moment::after_start(now.saturating_sub(self.started))
    }

    /// This engine's clock at a moment of the simulation.
    pub(super) fn after_start(&self, now: Duration) -> Duration {
        now.saturating_sub(self.started)
    }

    /// Lets the mirror take in an event.
    pub(super) fn step(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        if let Event::LinkOpened { replica, .. } | Event::Reply { replica, .. } = &event {
            self.heard.insert(*replica, now);
        }
        if let Event::LinkOpened { link, .. } = &event {
            self.opened.insert(*link);
        }
        let mut effects = Vec::new();
        self.mirror.step(self.moment(now), event, &mut effects);
        effects
    }

    /// Whether it has told that what was not flushed may be lost.
    pub(super) fn told_loss(&self) -> bool {
        self.mirror.status().unflushed_lost
    }

    /// Whether it knows what the replica said when this link was opened.
    pub(super) fn knows(&self, link: LinkId) -> bool {
        self.opened.contains(&link)
    }

    /// How long it has not heard a replica.
    pub(super) fn silence(&self, replica: ReplicaId, now: Duration) -> Duration {
        let heard = self.heard.get(&replica).copied();
        now.saturating_sub(heard.unwrap_or(self.started))
    }

    /// When the mirror wants the time.
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.mirror
            .wake_at()
            .map(|moment| self.started + moment.since_start())
    }

    /// Takes an operation of a client; the event is to be given to [`Engine::step`].
    pub(super) fn submit(&mut self, operation: Operation, waiting: Waiting) -> Event {
        let id = OperationId(self.next_operation);
        self.next_operation += 1;
        self.waiting.insert(id, waiting);
        Event::Submit { id, operation }
    }

    /// What the mirror says of itself, in one line.
    pub(super) fn describe(&self) -> String {
        let status = self.mirror.status();
        format!(
            "{:?} held: {:?}, {:?}",
            self.id, status.held_because, status.replicas
        )
    }
}
