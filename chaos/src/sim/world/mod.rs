//! Everything of one run, and what happens in it, one event at a time.

mod absence;
mod control;
mod effects;
mod finish;
mod load;
mod model;
mod operator;
mod planning;
mod polls;
mod proposals;
mod strike;
mod traffic;

use std::collections::BTreeMap;
use std::time::Duration;

use ankole_blockd::disk::sim::SimDisk;
use ankole_engine::mirror::event::{Event, LinkFailure, Orders, RecordRefusal};
use ankole_proto::rpc::v1::LogAnswer;
use ankole_proto::wire::Frame;
use ankole_proto::wire::body::{OpenRequest, Opened};
use ankole_proto::{ReplicaId, SnapshotId, VolumeId};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::checker::{self, Checker, Finding, Verdict};
use super::engine::{Engine, EngineId};
use super::fleet::Fleet;
use super::history::WriteId;
use super::host::Host;
use super::mutation::Mutation;
use super::network::{LinkKey, Network};
use super::schedule::Schedule;
use super::trace::Trace;
use super::{Summary, Violation, faults};
use absence::Absence;
pub(super) use model::Model;
use planning::Planning;
use polls::{Poll, Report, Who};
use proposals::{Asker, Proposal};

/// How many hosts and volumes there are.
const HOSTS: std::ops::RangeInclusive<usize> = 3..=4;
const VOLUMES: std::ops::RangeInclusive<usize> = 1..=3;
const DISK_BYTES: u64 = 1 << 30;
/// How long the load and the faults go on.
const LOAD_TIME: Duration = Duration::from_secs(9);
/// After the last fault the volume must be healthy within this.
const CONVERGENCE_LIMIT: Duration = Duration::from_secs(240);
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
    /// A sync of a replica ends.
    Sync {
        host: usize,
        replica: ReplicaId,
        number: u64,
    },
    /// The reply reaches the engine.
    Reply { key: LinkKey, frame: Frame },
    /// An engine's timer.
    Tick { engine: EngineId },
    /// A proposal takes effect.
    Commit { proposal: Box<Proposal> },
    /// Whoever made it hears of it.
    Answered {
        asker: Box<Asker>,
        answer: Option<Box<LogAnswer>>,
        orders: Option<Box<Result<Orders, RecordRefusal>>>,
    },
    /// The leader plans.
    Plan { timed: bool },
    /// A daemon reports.
    Beat { who: Who, call: u64 },
    /// The report reaches the leader.
    Report {
        who: Who,
        call: u64,
        report: Box<Report>,
    },
    /// Some heartbeat was held for long enough.
    Polls,
    /// Its answer reaches the daemon.
    Ordered {
        who: Who,
        call: u64,
        orders: Box<polls::Orders>,
    },
    /// People look after their volumes.
    Operate,
    /// Agents look after their engines.
    Look,
    /// An engine is told to end.
    StopEngine { engine: EngineId },
    /// An agent starts.
    StartAgent { host: usize },
    /// A host is switched off, and stays away for long.
    Vanish { host: usize },
    /// A host's blockd starts.
    StartHost { host: usize },
    /// The network between an engine and a host passes again.
    Join { engine: EngineId, host: usize },
    /// A disk has room again.
    FreeDisk { host: usize },
    /// A client asks for something.
    Ask,
    /// A fault strikes.
    Strike,
    /// Background work on every host.
    Work,
}

/// One run.
pub(super) struct World {
    seed: u64,
    random: StdRng,
    trace: Trace,
    schedule: Schedule<Happening>,
    network: Network,
    hosts: Vec<Host>,
    fleet: Fleet,
    planning: Planning,
    polls: Vec<Poll>,
    /// The heartbeat that each daemon waits for.
    calls: BTreeMap<Who, u64>,
    next_call: u64,
    engines: BTreeMap<EngineId, Engine>,
    next_engine: u64,
    /// On which host each replica is.
    places: BTreeMap<ReplicaId, usize>,
    models: BTreeMap<VolumeId, Model>,
    /// Calls to go back to a snapshot that are on their way, by their request ids.
    reverts: BTreeMap<String, (VolumeId, WriteId)>,
    volumes_wanted: usize,
    /// A volume is being created.
    creating: bool,
    next_name: u64,
    next_salt: u64,
    /// Snapshots that were asked for as one cut.
    groups: Vec<Vec<(VolumeId, SnapshotId)>>,
    /// A host that stays away for so long that its replicas are replaced.
    absence: Option<Absence>,
    /// The next engine of this volume does not reach these hosts before then.
    split: Option<(VolumeId, Vec<usize>, Duration)>,
    /// The host whose disk errs and rots.
    cursed: usize,
    healing: bool,
    /// By the managers' clock.
    healed_at_ms: u64,
    mutation: Option<Mutation>,
    /// How patient the engines of this run are: a short patience ends before an old lease does.
    open_grace: Duration,
    summary: Summary,
}

impl World {
    pub(super) fn new(seed: u64, mutation: Option<Mutation>, trace: Trace) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(HOSTS);
        let volumes_wanted = random.random_range(VOLUMES);
        let hosts = (0..count)
            .map(|number| Host::new(number, SimDisk::new(DISK_BYTES), mutation))
            .collect();
        let cursed = random.random_range(0..count);
        let absence = Absence::random(&mut random, count);
        let random_grace = random.random_range(0..GRACES.len());
        Self {
            seed,
            random,
            trace,
            schedule: Schedule::new(),
            network: Network::default(),
            hosts,
            fleet: Fleet::new(mutation),
            planning: Planning::default(),
            polls: Vec::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            engines: BTreeMap::new(),
            next_engine: 1,
            places: BTreeMap::new(),
            models: BTreeMap::new(),
            reverts: BTreeMap::new(),
            volumes_wanted,
            creating: false,
            next_name: 1,
            next_salt: 1,
            groups: Vec::new(),
            absence,
            split: None,
            cursed,
            healing: false,
            healed_at_ms: 0,
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
        Ok(self.summary)
    }

    fn note(&mut self, text: std::fmt::Arguments<'_>) {
        self.trace.line(self.schedule.now(), text);
    }

    fn live(&mut self) -> Verdict {
        for host in 0..self.hosts.len() {
            self.start_host(host);
            self.start_agent(host);
        }
        for first in [
            Happening::Ask,
            Happening::Look,
            Happening::Operate,
            Happening::Plan { timed: true },
            Happening::Work,
        ] {
            self.schedule.after(Duration::ZERO, first);
        }
        let pause = faults::pause(&mut self.random);
        self.schedule.after(pause, Happening::Strike);
        if let Some(absence) = self.absence {
            let Absence { host, begin, .. } = absence;
            self.schedule.at(begin, Happening::Vanish { host });
        }
        while self.schedule.now() < LOAD_TIME {
            self.advance()?;
        }
        self.heal();
        self.sit_out_absence()?;
        let deadline = self.schedule.now() + CONVERGENCE_LIMIT;
        loop {
            while let Some(what) = self.unsettled() {
                if self.is_doomed() || (self.schedule.now() > deadline && self.has_rotted()) {
                    self.note(format_args!("the last good copy is gone: nothing to check"));
                    return Ok(());
                }
                if self.schedule.now() > deadline {
                    let all = self.describe();
                    let what = format!("does not become healthy: {what}: {all}");
                    return Err(Checker::Liveness.says()(what));
                }
                self.advance()?;
            }
            self.read_back()?;
            // An engine that notices only now what a replica lost repairs it first.
            if self.unsettled().is_none() {
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
        let touches_hosts = matches!(
            happening,
            Happening::Open { .. }
                | Happening::Execute { .. }
                | Happening::Sync { .. }
                | Happening::Work
                | Happening::StartHost { .. }
        );
        let touches_record = matches!(happening, Happening::Commit { .. } | Happening::Plan { .. });
        self.handle(happening)?;
        if touches_hosts {
            checker::epochs::check(&mut self.hosts).map_err(Checker::Epochs.says())?;
            checker::syncs::check(&self.hosts).map_err(Checker::Syncs.says())?;
        }
        if touches_hosts || touches_record {
            checker::rebuilding::check(&self.hosts, &self.fleet)
                .map_err(Checker::Rebuilding.says())?;
        }
        if touches_record {
            checker::membership::check(&self.fleet.state).map_err(Checker::Membership.says())?;
            checker::agreement::check(&self.fleet.state).map_err(Checker::Agreement.says())?;
        }
        Ok(())
    }

    fn handle(&mut self, happening: Happening) -> Verdict {
        match happening {
            Happening::Open { key, open, sent } => self.open(key, &open, sent),
            Happening::Opened { key, opened, sent } => return self.opened(key, *opened, sent),
            Happening::Closed { key, failure } => return self.closed(key, failure),
            Happening::Arrive { key, frame } => self.arrive(key, frame),
            Happening::Execute { key, frame } => self.execute(key, &frame),
            Happening::Sync {
                host,
                replica,
                number,
            } => self.sync(host, replica, number),
            Happening::Reply { key, frame } => return self.replied(key, frame),
            Happening::Tick { engine } => return self.tick(engine),
            Happening::Commit { proposal } => return self.commit(*proposal),
            Happening::Answered {
                asker,
                answer,
                orders,
            } => {
                let (answer, orders) = (answer.map(|one| *one), orders.map(|one| *one));
                return self.answered(*asker, answer, orders);
            }
            Happening::Plan { timed } => return self.plan(timed),
            Happening::Beat { who, call } => return self.beat(who, call),
            Happening::Report { who, call, report } => return self.reported(who, call, &report),
            Happening::Polls => self.answer_polls(),
            Happening::Ordered { who, call, orders } => return self.ordered(who, call, *orders),
            Happening::Operate => return self.operate(),
            Happening::Look => return self.look(),
            Happening::StopEngine { engine } => return self.stop_engine(engine),
            Happening::Vanish { host } => self.vanish(host),
            Happening::StartAgent { host } => self.start_agent(host),
            Happening::StartHost { host } => self.start_host(host),
            Happening::Join { engine, host } => self.join(engine, host),
            Happening::FreeDisk { host } => self.hosts[host].disk.set_capacity(DISK_BYTES),
            Happening::Ask => return self.ask(),
            Happening::Strike => return self.strike(),
            Happening::Work => {
                let now = self.schedule.now();
                self.hosts.iter_mut().for_each(|host| host.work(now));
                self.schedule.after(WORK_INTERVAL, Happening::Work);
            }
        }
        Ok(())
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
        if !self.hosts[host].is_up() && !self.is_absent(host) {
            self.hosts[host].start(now);
            let node = self.hosts[host].node.clone();
            self.note(format_args!("blockd on {node} starts"));
            self.beat_now(Who::Blockd(host));
        }
    }

    fn describe(&self) -> String {
        let engines: Vec<String> = self.engines.values().map(Engine::describe).collect();
        format!("{}; engines {engines:?}", self.fleet.describe())
    }
}
