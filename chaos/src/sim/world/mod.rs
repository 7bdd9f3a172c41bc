//! Everything of one run, and what happens in it, one event at a time.

mod control;
mod effects;
mod finish;
mod load;
mod strike;
mod traffic;

use std::collections::BTreeMap;
use std::time::Duration;

use ankole_blockd::disk::sim::SimDisk;
use ankole_blockd::replica::ReplicaSpec;
use ankole_engine::mirror::event::{Event, LinkFailure, Record, RecordRefusal};
use ankole_proto::wire::Frame;
use ankole_proto::wire::body::{OpenRequest, Opened};
use ankole_proto::{NodeName, ReplicaId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::checker::{self, Checker, Finding, Verdict};
use super::engine::{Engine, EngineId};
use super::history::{History, WriteId};
use super::host::Host;
use super::managers::Managers;
use super::mutation::Mutation;
use super::network::{LinkKey, Network};
use super::schedule::Schedule;
use super::trace::Trace;
use super::workload;
use super::{Summary, Violation, faults};

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
const GRACES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

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
    /// A disk has room again.
    FreeDisk { host: usize },
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
    /// The revert on its way.
    revert: Option<WriteId>,
    mutation: Option<Mutation>,
    /// How patient the engines of this run are: a short patience ends before an old lease does.
    open_grace: Duration,
    summary: Summary,
}

impl World {
    pub(super) fn new(seed: u64, mutation: Option<Mutation>, trace: Trace) -> Self {
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
        let managers = Managers::new(workload::size(), &named, mutation);
        let hosts = named
            .into_iter()
            .map(|(id, node)| Host::new(node, id, SimDisk::new(DISK_BYTES), mutation))
            .collect();
        let cursed = random.random_range(0..HOSTS);
        let random_grace = random.random_range(0..GRACES.len());
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
            history: History::default(),
            cursed,
            healing: false,
            revert: None,
            mutation,
            open_grace: GRACES[random_grace],
            summary: Summary::default(),
        }
    }

    pub(super) fn into_trace(self) -> Trace {
        self.trace
    }

    pub(super) fn run(&mut self) -> Result<Summary, Violation> {
        let result = self.live();
        let (seed, at) = (self.seed, self.schedule.now());
        if let Err(Finding { by, what }) = &result {
            self.note(format_args!("VIOLATION: {by:?}: {what}"));
        }
        result.map_err(|Finding { by, what }| Violation { seed, at, by, what })?;
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

    fn live(&mut self) -> Verdict {
        for host in 0..HOSTS {
            let spec = self.spec(self.hosts[host].replica);
            let created = self.hosts[host].create(&spec);
            created.map_err(Checker::Liveness.says())?;
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
        loop {
            while !self.is_converged() {
                if self.is_doomed() || (self.schedule.now() > deadline && self.has_rotted()) {
                    self.note(format_args!("the last good copy is gone: nothing to check"));
                    return Ok(());
                }
                if self.schedule.now() > deadline {
                    let what = format!("does not become healthy: {}", self.describe());
                    return Err(Checker::Liveness.says()(what));
                }
                self.advance()?;
            }
            self.read_back()?;
            // An engine that notices only now what a replica lost repairs it first.
            if self.is_converged() {
                return self.finish();
            }
        }
    }

    /// Lets the next thing happen and looks at what must always hold.
    fn advance(&mut self) -> Verdict {
        let Some(happening) = self.schedule.next() else {
            return Err(Checker::Liveness.says()(
                "nothing is left to happen".to_owned(),
            ));
        };
        self.handle(happening)?;
        let (hosts, managers) = (&mut self.hosts, &self.managers);
        checker::epochs::check(hosts).map_err(Checker::Epochs.says())?;
        checker::syncs::check(hosts).map_err(Checker::Syncs.says())?;
        checker::rebuilding::check(hosts, managers).map_err(Checker::Rebuilding.says())?;
        checker::membership::check(managers).map_err(Checker::Membership.says())
    }

    fn handle(&mut self, happening: Happening) -> Verdict {
        match happening {
            Happening::Open { key, open, sent } => self.open(key, &open, sent),
            Happening::Opened { key, opened, sent } => return self.opened(key, *opened, sent),
            Happening::Closed { key, failure } => return self.closed(key, failure),
            Happening::Arrive { key, frame } => self.arrive(key, frame),
            Happening::Execute { key, frame } => self.execute(key, &frame),
            Happening::Reply { key, frame } => return self.replied(key, frame),
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
            Happening::Orders { engine } => return self.orders(engine),
            Happening::StartHost { host } => self.start_host(host),
            Happening::StartEngine => return self.start_engine(),
            Happening::Join { engine, replica } => self.join(engine, replica),
            Happening::FreeDisk { host } => self.hosts[host].disk.set_capacity(DISK_BYTES),
            Happening::Ask => return self.ask(),
            Happening::Strike => return self.strike(),
            Happening::Reconcile => return self.reconcile(),
            Happening::Work => {
                let now = self.schedule.now();
                self.hosts.iter_mut().for_each(|host| host.work(now));
                self.schedule.after(WORK_INTERVAL, Happening::Work);
            }
        }
        Ok(())
    }

    fn host_of(&mut self, replica: ReplicaId) -> Option<&mut Host> {
        self.hosts.iter_mut().find(|host| host.replica == replica)
    }

    fn tick(&mut self, id: EngineId) -> Verdict {
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

    fn start_host(&mut self, host: usize) {
        let now = self.schedule.now();
        if !self.hosts[host].is_up() {
            self.hosts[host].start(now);
            let node = self.hosts[host].node.clone();
            let fault = self.hosts[host].fault();
            self.note(format_args!("blockd on {node} starts: {fault:?}"));
        }
    }

    fn describe(&self) -> String {
        let engines: Vec<String> = self.engines.values().map(Engine::describe).collect();
        format!("record {:?}; engines {engines:?}", self.managers.replicas)
    }
}
