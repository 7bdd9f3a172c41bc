//! Everything of one run, and what happens in it, one event at a time.

mod effects;
mod finish;
mod strike;

use std::collections::BTreeMap;
use std::time::Duration;

use ankole_blockd::disk::sim::SimDisk;
use ankole_blockd::replica::ReplicaSpec;
use ankole_engine::mirror::event::{Event, LinkFailure, Record, RecordRefusal};
use ankole_engine::volume::Operation;
use ankole_proto::wire::Frame;
use ankole_proto::wire::body::{OpenRequest, Opened};
use ankole_proto::{NodeName, ReplicaId};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::engine::{Engine, EngineId, Waiting};
use super::history::History;
use super::host::Host;
use super::managers::{Managers, Mode};
use super::network::{LinkKey, Network, delay};
use super::schedule::Schedule;
use super::trace::Trace;
use super::workload::{self, Ask};
use super::{Summary, Violation, checker, faults};

const HOSTS: usize = 3;
const DISK_BYTES: u64 = 1 << 30;
/// How long the load and the faults go on.
const LOAD_TIME: Duration = Duration::from_secs(15);
/// After the last fault the volume must be healthy within this.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(120);
const RECONCILE_INTERVAL: Duration = Duration::from_millis(500);
const WORK_INTERVAL: Duration = Duration::from_millis(100);
/// Operations that clients have at one engine.
const OPERATIONS_MAX: usize = 8;
/// How long an engine's client tries to reach the managers.
const RECORD_DEADLINE: Duration = Duration::from_secs(1);
/// One answer of the managers in so many is lost after they have acted.
const LOST_ANSWER_ONE_IN: u32 = 20;

/// What happens.
#[derive(Debug)]
enum Happening {
    /// The first frame of a connection reaches its host.
    Open {
        key: LinkKey,
        open: Box<OpenRequest>,
        sent: Duration,
    },
    /// Its answer reaches the engine.
    Opened {
        key: LinkKey,
        opened: Box<Opened>,
        sent: Duration,
    },
    /// The engine learns that a connection is gone, or was not to be had.
    Closed { key: LinkKey, failure: LinkFailure },
    /// A request reaches its host.
    Arrive { key: LinkKey, frame: Frame },
    /// The host carries it out.
    Execute { key: LinkKey, frame: Frame },
    /// The reply reaches the engine.
    Reply { key: LinkKey, frame: Frame },
    /// An engine's timer.
    Tick { engine: EngineId },
    /// A request to record something reaches the managers.
    Record { engine: EngineId, record: Record },
    /// Their answer reaches the engine.
    Recorded {
        engine: EngineId,
        record: Record,
        result: Result<Box<ankole_engine::mirror::event::Orders>, RecordRefusal>,
    },
    /// An engine hears from the managers.
    Orders { engine: EngineId },
    /// A host's blockd starts.
    StartHost { host: usize },
    /// An agent starts an engine.
    StartEngine,
    /// The network between an engine and a host passes again.
    Join {
        engine: EngineId,
        replica: ReplicaId,
    },
    /// A client asks for something.
    Ask,
    /// A fault strikes.
    Strike,
    /// The managers look at what there is.
    Reconcile,
    /// Background work on every host.
    Work,
}

/// What an agent knows of the last engine.
#[derive(Debug, Clone, Copy, Default)]
struct Predecessor {
    /// It is known to have ended.
    ended: bool,
    /// Nobody before it can believe in a lease any more: it served, or all of them ended.
    alone: bool,
}

/// One run.
pub(super) struct World {
    seed: u64,
    random: StdRng,
    trace: Trace,
    schedule: Schedule<Happening>,
    network: Network,
    hosts: Vec<Host>,
    managers: Managers,
    engines: BTreeMap<EngineId, Engine>,
    next_engine: u64,
    predecessor: Predecessor,
    next_replica: u128,
    history: History,
    /// The host whose disk errs and rots.
    cursed: usize,
    healing: bool,
    summary: Summary,
}

impl World {
    pub(super) fn new(seed: u64, trace: Trace) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let nodes: Vec<NodeName> = (1..=HOSTS)
            .map(|number| {
                let name = format!("n{number}");
                name.parse().unwrap_or_else(|error| unreachable!("{error}"))
            })
            .collect();
        let ids: Vec<ReplicaId> = (1..=HOSTS as u128).map(ReplicaId::from_bits).collect();
        let named: Vec<(ReplicaId, NodeName)> =
            ids.iter().copied().zip(nodes.iter().cloned()).collect();
        let managers = Managers::new(workload::size(), &named);
        let hosts = named
            .into_iter()
            .map(|(id, node)| Host::new(node, id, SimDisk::new(DISK_BYTES)))
            .collect();
        let cursed = random.random_range(0..HOSTS);
        Self {
            seed,
            random,
            trace,
            schedule: Schedule::new(),
            network: Network::default(),
            hosts,
            managers,
            engines: BTreeMap::new(),
            next_engine: 1,
            predecessor: Predecessor {
                ended: true,
                alone: true,
            },
            next_replica: HOSTS as u128 + 1,
            history: History::new(),
            cursed,
            healing: false,
            summary: Summary::default(),
        }
    }

    pub(super) fn into_trace(self) -> Trace {
        self.trace
    }

    pub(super) fn run(&mut self) -> Result<Summary, Violation> {
        let result = self.live();
        let (seed, at) = (self.seed, self.schedule.now());
        if let Err(what) = &result {
            self.note(format_args!("VIOLATION: {what}"));
        }
        result.map_err(|what| Violation { seed, at, what })?;
        self.summary.rebuilds = self.managers.rebuilds;
        Ok(self.summary)
    }

    fn note(&mut self, text: std::fmt::Arguments<'_>) {
        self.trace.line(self.schedule.now(), text);
    }

    fn spec(&self, replica: ReplicaId) -> ReplicaSpec {
        ReplicaSpec {
            replica,
            volume: self.managers.volume,
            size: self.managers.size,
            base_layer: self.managers.base(),
            credential: self.managers.credential,
        }
    }

    fn live(&mut self) -> Result<(), String> {
        for host in 0..HOSTS {
            let spec = self.spec(self.hosts[host].replica);
            self.hosts[host].create(&spec)?;
            self.hosts[host].start(Duration::ZERO);
        }
        self.schedule.after(Duration::ZERO, Happening::StartEngine);
        self.schedule.after(Duration::ZERO, Happening::Ask);
        self.schedule
            .after(RECONCILE_INTERVAL, Happening::Reconcile);
        self.schedule.after(WORK_INTERVAL, Happening::Work);
        let pause = faults::pause(&mut self.random);
        self.schedule.after(pause, Happening::Strike);
        while self.schedule.now() < LOAD_TIME {
            self.advance()?;
        }
        self.heal();
        let deadline = self.schedule.now() + CONVERGENCE_LIMIT;
        while !self.is_converged() {
            if self.is_doomed() {
                self.note(format_args!(
                    "the last in-sync replica's disk failed: nothing to check"
                ));
                return Ok(());
            }
            if self.schedule.now() > deadline {
                return Err(format!("does not become healthy: {}", self.describe()));
            }
            self.advance()?;
        }
        self.finish()
    }

    /// Lets the next thing happen and looks at what must always hold.
    fn advance(&mut self) -> Result<(), String> {
        let Some(happening) = self.schedule.next() else {
            return Err("nothing is left to happen".to_owned());
        };
        self.handle(happening)?;
        checker::epochs::check(&mut self.hosts)?;
        checker::membership::check(&self.managers)
    }

    fn handle(&mut self, happening: Happening) -> Result<(), String> {
        let now = self.schedule.now();
        match happening {
            Happening::Open { key, open, sent } => self.open(key, &open, sent),
            Happening::Opened { key, opened, sent } => return self.opened(key, *opened, sent),
            Happening::Closed { key, failure } => {
                if self.network.disconnect(key) {
                    let (replica, link) = (key.replica, key.link);
                    let event = Event::LinkClosed {
                        replica,
                        link,
                        reason: failure,
                    };
                    return self.step(key.engine, event);
                }
            }
            Happening::Arrive { key, frame } => self.arrive(key, frame),
            Happening::Execute { key, frame } => self.execute(key, &frame),
            Happening::Reply { key, frame } => {
                if self.network.is_connected(key) {
                    let (replica, link) = (key.replica, key.link);
                    return self.step(
                        key.engine,
                        Event::Reply {
                            replica,
                            link,
                            frame,
                        },
                    );
                }
            }
            Happening::Tick { engine } => return self.tick(engine),
            Happening::Record { engine, record } => self.record(engine, record),
            Happening::Recorded {
                engine,
                record,
                result,
            } => {
                let result = result.map(|orders| *orders);
                return self.step(engine, Event::Recorded { record, result });
            }
            Happening::Orders { engine } => {
                if now >= self.managers.unreachable_until {
                    let orders = self.managers.orders();
                    return self.step(engine, Event::Orders(orders));
                }
            }
            Happening::StartHost { host } => self.start_host(host),
            Happening::StartEngine => return self.start_engine(),
            Happening::Join { engine, replica } => self.join(engine, replica),
            Happening::Ask => return self.ask(),
            Happening::Strike => return self.strike(),
            Happening::Reconcile => self.reconcile()?,
            Happening::Work => {
                self.hosts.iter_mut().for_each(Host::work);
                self.schedule.after(WORK_INTERVAL, Happening::Work);
            }
        }
        Ok(())
    }

    fn host_of(&mut self, replica: ReplicaId) -> Option<&mut Host> {
        self.hosts.iter_mut().find(|host| host.replica == replica)
    }

    fn open(&mut self, key: LinkKey, open: &OpenRequest, sent: Duration) {
        let now = self.schedule.now();
        let Some(host) = self.host_of(key.replica).filter(|host| host.is_up()) else {
            self.close_later(key, LinkFailure::Transport("connection refused".to_owned()));
            return;
        };
        match host.open(key, open, now) {
            Ok(opened) => {
                self.note(format_args!("{key:?} opened: {opened:?}"));
                if let Some(at) = self.network.to_engine(key, now, &mut self.random) {
                    let opened = Box::new(opened);
                    self.schedule
                        .at(at, Happening::Opened { key, opened, sent });
                }
            }
            Err(denial) => {
                self.note(format_args!("{key:?} refused: {denial:?}"));
                self.close_later(key, effects::failure_of(&denial));
            }
        }
    }

    fn opened(&mut self, key: LinkKey, opened: Opened, sent: Duration) -> Result<(), String> {
        if !self.network.is_connected(key) {
            return Ok(());
        }
        let Some(engine) = self.engines.get(&key.engine) else {
            return Ok(());
        };
        let sent_after_start = engine.after_start(sent);
        let (replica, link) = (key.replica, key.link);
        self.step(
            key.engine,
            Event::LinkOpened {
                replica,
                link,
                opened,
                sent_after_start,
            },
        )
    }

    /// The engine will notice that the connection is gone.
    fn close_later(&mut self, key: LinkKey, failure: LinkFailure) {
        let delay = delay(&mut self.random);
        self.schedule
            .after(delay, Happening::Closed { key, failure });
    }

    fn arrive(&mut self, key: LinkKey, frame: Frame) {
        let now = self.schedule.now();
        let work = Duration::from_micros(self.random.random_range(0..200));
        let Some(host) = self.host_of(key.replica) else {
            return;
        };
        if host.is_up() && host.tenant() != Some(key) {
            // Its host does not know the connection any more.
            self.close_later(key, LinkFailure::Transport("connection reset".to_owned()));
            return;
        }
        let slow = host
            .slow
            .filter(|(until, _)| now < *until)
            .map_or(Duration::ZERO, |(_, by)| by);
        self.schedule
            .after(work + slow, Happening::Execute { key, frame });
    }

    fn execute(&mut self, key: LinkKey, frame: &Frame) {
        let now = self.schedule.now();
        let Some(reply) = self
            .host_of(key.replica)
            .and_then(|host| host.execute(key, frame, now))
        else {
            return;
        };
        if let Some(code) = reply.header.error {
            let opcode = reply.header.opcode;
            self.note(format_args!("{key:?} {opcode:?} answered: {code:?}"));
        }
        if let Some(at) = self.network.to_engine(key, now, &mut self.random) {
            self.schedule.at(at, Happening::Reply { key, frame: reply });
        }
    }

    fn tick(&mut self, id: EngineId) -> Result<(), String> {
        let now = self.schedule.now();
        let Some(engine) = self.engines.get_mut(&id) else {
            return Ok(());
        };
        if engine.tick_at != Some(now) {
            return Ok(());
        }
        engine.tick_at = None;
        self.step(id, Event::Tick)
    }

    fn record(&mut self, engine: EngineId, record: Record) {
        let now = self.schedule.now();
        let Some(epoch) = self.engines.get(&engine).map(|engine| engine.epoch) else {
            return;
        };
        let unreachable = || Err(RecordRefusal::Unreachable("no answer".to_owned()));
        if now < self.managers.unreachable_until {
            let result = unreachable();
            let happening = Happening::Recorded {
                engine,
                record,
                result,
            };
            self.schedule.after(RECORD_DEADLINE, happening);
            return;
        }
        let result = self.managers.record(epoch, &record, now).map(Box::new);
        let refusal = result.as_ref().err().cloned();
        self.note(format_args!("managers: {engine:?} {record:?}: {refusal:?}"));
        if matches!(record, Record::TaskDone { refusal: None, .. }) && refusal.is_none() {
            self.summary.snapshots += 1;
        }
        if self.random.random_ratio(1, LOST_ANSWER_ONE_IN) {
            let result = unreachable();
            let happening = Happening::Recorded {
                engine,
                record,
                result,
            };
            self.schedule.after(RECORD_DEADLINE, happening);
        } else {
            let delay = delay(&mut self.random);
            self.schedule.after(
                delay,
                Happening::Recorded {
                    engine,
                    record,
                    result,
                },
            );
        }
        self.tell_engines();
    }

    /// The record changed: every engine hears of it.
    fn tell_engines(&mut self) {
        for engine in self.engines.keys().copied().collect::<Vec<_>>() {
            let delay = delay(&mut self.random);
            self.schedule.after(delay, Happening::Orders { engine });
        }
    }

    fn reconcile(&mut self) -> Result<(), String> {
        self.schedule
            .after(RECONCILE_INTERVAL, Happening::Reconcile);
        if self.schedule.now() < self.managers.unreachable_until {
            return Ok(());
        }
        let lost: Vec<ReplicaId> = self.managers.with(Mode::OutOfSync).collect();
        for replica in lost {
            let Some(host) = self.host_of(replica).filter(|host| host.is_up()) else {
                continue;
            };
            if host.fault().is_none() {
                self.managers.start_rebuild(replica);
                continue;
            }
            let new = ReplicaId::from_bits(self.next_replica);
            self.next_replica += 1;
            let spec = self.spec(new);
            let now = self.schedule.now();
            if let Some(host) = self.host_of(replica) {
                host.create(&spec)?;
                host.start(now);
            }
            self.managers.replace(replica, new);
            self.note(format_args!(
                "managers: {replica} is broken, replaced by {new}"
            ));
        }
        self.tell_engines();
        if self.engines.is_empty() {
            self.schedule.after(Duration::ZERO, Happening::StartEngine);
        }
        Ok(())
    }

    fn start_host(&mut self, host: usize) {
        let now = self.schedule.now();
        if !self.hosts[host].is_up() {
            self.hosts[host].start(now);
            let node = self.hosts[host].node.clone();
            let fault = self.hosts[host].fault();
            self.note(format_args!("blockd on {node} starts: {fault:?}"));
        }
    }

    fn start_engine(&mut self) -> Result<(), String> {
        let now = self.schedule.now();
        if !self.engines.is_empty() && self.predecessor.ended {
            return Ok(());
        }
        if now < self.managers.unreachable_until {
            self.schedule
                .at(self.managers.unreachable_until, Happening::StartEngine);
            return Ok(());
        }
        self.managers.grant();
        let id = EngineId(self.next_engine);
        self.next_engine += 1;
        let node = self.hosts[self.random.random_range(0..HOSTS)].node.clone();
        let alone = self.predecessor.ended && self.predecessor.alone;
        let epoch = self.managers.epoch;
        self.note(format_args!(
            "{id:?} starts on {node} with epoch {epoch}, alone: {alone}"
        ));
        self.engines
            .insert(id, Engine::new(id, node, alone, &self.managers, now));
        self.predecessor = Predecessor {
            ended: false,
            alone,
        };
        self.summary.engines += 1;
        self.tell_engines();
        self.step(id, Event::Tick)
    }

    fn join(&mut self, engine: EngineId, replica: ReplicaId) {
        self.note(format_args!(
            "{engine:?} and {replica} reach each other again"
        ));
        self.network.join(engine);
        for key in self
            .network
            .connections(|key| key.engine == engine && key.replica == replica)
        {
            // What was sent meanwhile is lost, so the connection cannot go on.
            self.close_later(key, LinkFailure::Transport("connection reset".to_owned()));
        }
    }

    fn ask(&mut self) -> Result<(), String> {
        if !self.healing {
            let pause = Duration::from_micros(self.random.random_range(0..20_000));
            self.schedule.after(pause, Happening::Ask);
        }
        let free: Vec<EngineId> = self
            .engines
            .values()
            .filter(|engine| engine.waiting.len() < OPERATIONS_MAX)
            .map(|engine| engine.id)
            .collect();
        if free.is_empty() {
            return Ok(());
        }
        let engine = free[self.random.random_range(0..free.len())];
        let ask = workload::next(&mut self.random);
        self.submit(engine, ask)
    }

    fn submit(&mut self, id: EngineId, ask: Ask) -> Result<(), String> {
        let now = self.schedule.now();
        let (operation, waiting) = match ask {
            Ask::Read(extent) => (
                Operation::Read { extent },
                Waiting::Read { extent, begin: now },
            ),
            Ask::Write(extent, fua) => {
                let write = self.history.begin(id, extent, false, now);
                let data = Bytes::from(History::data(write, extent));
                (
                    Operation::Write { extent, data, fua },
                    Waiting::Mutation {
                        write,
                        durable: fua,
                        extent,
                    },
                )
            }
            Ask::Unmap(extent) => {
                let write = self.history.begin(id, extent, true, now);
                (
                    Operation::Unmap { extent },
                    Waiting::Mutation {
                        write,
                        durable: false,
                        extent,
                    },
                )
            }
            Ask::WriteZeroes(extent, fua) => {
                let write = self.history.begin(id, extent, true, now);
                (
                    Operation::WriteZeroes { extent, fua },
                    Waiting::Mutation {
                        write,
                        durable: fua,
                        extent,
                    },
                )
            }
            Ask::Flush => (Operation::Flush, Waiting::Flush { begin: now }),
        };
        self.note(format_args!("{id:?} is asked {ask:?}"));
        let Some(engine) = self.engines.get_mut(&id) else {
            return Ok(());
        };
        let event = engine.submit(operation, waiting);
        self.step(id, event)
    }

    fn describe(&self) -> String {
        let engines: Vec<String> = self.engines.values().map(Engine::describe).collect();
        format!("record {:?}; engines {engines:?}", self.managers.replicas)
    }
}
