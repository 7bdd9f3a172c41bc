//! One engine process: the real mirror core, and the operations that clients have at it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use ankole_engine::managers::{ControlConfig, EngineStatus, Rebuild, report};
use ankole_engine::mirror::event::{Effect, Event, LinkId, Orders};
use ankole_engine::mirror::{Mirror, MirrorConfig};
use ankole_engine::volume::{Moment, Operation, OperationId};
use ankole_proto::rpc::v1::EngineReport;
use ankole_proto::{Epoch, Extent, NodeName, ReplicaId, VolumeId, VolumeSize};
use bytes::Bytes;

use super::history::WriteId;
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
        expected: Expected,
        begin: Duration,
    },
    /// An operation that changes no content.
    Same,
    /// A copy that is broken on purpose: what was read is to be written next.
    Torn {
        extent: Extent,
        fua: bool,
    },
    Flush {
        begin: Duration,
    },
}

/// Data that is told by its length.
#[derive(Clone)]
pub(super) struct Expected(pub(super) Bytes);

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// How an engine is started.
#[derive(Debug, Clone)]
pub(super) struct Start {
    pub(super) id: EngineId,
    pub(super) volume: VolumeId,
    pub(super) epoch: Epoch,
    pub(super) host: usize,
    pub(super) node: NodeName,
    pub(super) port: Option<u16>,
    pub(super) previous_ended: bool,
}

/// A running engine.
pub(super) struct Engine {
    pub(super) start: Start,
    /// `None` before the first orders.
    mirror: Option<Mirror>,
    /// What its clients know the volume's size to be.
    size: Option<VolumeSize>,
    pub(super) started: Duration,
    pub(super) serving: bool,
    pub(super) waiting: BTreeMap<OperationId, Waiting>,
    next_operation: u64,
    /// It hears nothing from the managers.
    pub(super) deaf: bool,
    pub(super) seen_revision: u64,
    /// When a replica was last heard.
    heard: BTreeMap<ReplicaId, Duration>,
    /// Links whose opening it has heard of.
    opened: BTreeSet<LinkId>,
    /// The earliest tick that is scheduled.
    pub(super) tick_at: Option<Duration>,
}

impl Engine {
    pub(super) fn new(start: Start, now: Duration) -> Self {
        Self {
            start,
            mirror: None,
            size: None,
            started: now,
            serving: false,
            waiting: BTreeMap::new(),
            next_operation: 1,
            deaf: false,
            seen_revision: 0,
            heard: BTreeMap::new(),
            opened: BTreeSet::new(),
            tick_at: None,
        }
    }

    pub(super) fn id(&self) -> EngineId {
        self.start.id
    }

    pub(super) fn volume(&self) -> VolumeId {
        self.start.volume
    }

    /// Begins its work, with its first orders. Those from before its grant are not for it.
    pub(super) fn begin(
        &mut self,
        orders: Orders,
        open_grace: Duration,
        mutation: Option<Mutation>,
    ) -> bool {
        if orders.epoch < self.start.epoch {
            return false;
        }
        let mut config = MirrorConfig::new(self.start.epoch, self.start.node.clone());
        config.previous_engine_ended = self.start.previous_ended;
        config.limits.open_grace = open_grace;
        if mutation == Some(Mutation::LongLeases) {
            config.limits.lease = Duration::from_secs(30);
        }
        if mutation == Some(Mutation::ChooseHastily) {
            config.limits.forgetful_grace = Duration::ZERO;
        }
        self.size = Some(orders.size);
        self.mirror = Some(Mirror::new(config, orders));
        true
    }

    /// Its clients learn that the volume has grown.
    pub(super) fn resized(&mut self, size: VolumeSize) {
        self.size = Some(size);
    }

    /// The size of its volume, once it knows.
    pub(super) fn size(&self) -> Option<VolumeSize> {
        self.size
    }

    /// Whether it has begun its work.
    pub(super) fn has_begun(&self) -> bool {
        self.mirror.is_some()
    }

    /// Whether clients may reach it.
    pub(super) fn has_clients(&self) -> bool {
        self.start.port.is_some() && self.mirror.is_some()
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
        let (mut effects, moment) = (Vec::new(), self.moment(now));
        if let Some(mirror) = &mut self.mirror {
            mirror.step(moment, event, &mut effects);
        }
        effects
    }

    /// Whether it has told that what was not flushed may be lost.
    pub(super) fn told_loss(&self) -> bool {
        let mirror = self.mirror.as_ref();
        mirror.is_some_and(|mirror| mirror.status().unflushed_lost)
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
        let moment = self.mirror.as_ref()?.wake_at()?;
        Some(self.started + moment.since_start())
    }

    /// Takes an operation of a client; the event is to be given to [`Engine::step`].
    pub(super) fn submit(&mut self, operation: Operation, waiting: Waiting) -> Event {
        let id = OperationId(self.next_operation);
        self.next_operation += 1;
        self.waiting.insert(id, waiting);
        Event::Submit { id, operation }
    }

    /// What it tells the managers.
    pub(super) fn report(&self) -> EngineReport {
        let config = ControlConfig {
            managers: Vec::new(),
            volume: self.start.volume,
            epoch: self.start.epoch,
            node: self.start.node.clone(),
        };
        report(&config, &self.status(), self.seen_revision)
    }

    fn status(&self) -> EngineStatus {
        let Some(mirror) = &self.mirror else {
            return EngineStatus::default();
        };
        let status = mirror.status();
        let replicas = status.replicas.iter();
        EngineStatus {
            serving: self.serving,
            initiators: 0,
            message: status.held_because.unwrap_or_default(),
            rebuilds: replicas
                .clone()
                .filter_map(|one| Some((one.replica, one.rebuild?)))
                .map(|(replica, progress)| Rebuild {
                    replica,
                    done_bytes: progress.done_bytes,
                    total_bytes: progress.total_bytes,
                    bytes_per_second: progress.bytes_per_second,
                })
                .collect(),
            repairs: replicas
                .filter(|one| one.repaired_blocks > 0)
                .map(|one| (one.replica, one.repaired_blocks))
                .collect(),
            held_task: status.held_task,
            comparison: status.comparison,
        }
    }

    /// What the mirror says of itself, in one line.
    pub(super) fn describe(&self) -> String {
        let status = self.mirror.as_ref().map(Mirror::status);
        let held = status.map(|status| (status.held_because, status.replicas));
        format!("{:?}: {held:?}", self.start)
    }
}
