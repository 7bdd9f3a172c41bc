//! Replication of one volume: which replicas get what, when a command is done, who is lost.
//!
//! Pure: [`event::Event`]s in, [`event::Effect`]s out; no socket, clock, randomness or tokio. The
//! same code runs under `run` in production and under the simulator in `chaos`. The whole of it is
//! told, with the reasons, in `docs/replication.md`.
//!
//! Upholds INV-1 (a fenced engine stops for good), INV-2 and INV-3 (an acknowledgement waits for
//! every replica on record as in sync; a replica that fails is first recorded lost), INV-4, INV-5,
//! INV-8, INV-9, INV-13 and INV-14.
//!
//! A job ([`job`]) takes its range lock ([`overlap`]), then reads ([`read`]), mutates ([`write`],
//! through the [`window`]) or flushes ([`flush`]); bad blocks are rewritten ([`repair`]),
//! and replicas that differ found ([`compare`]). Replicas
//! ([`replica`]) come and go ([`link`], [`loss`], [`members`]); [`start`], [`task`], [`rebuild`] and
//! [`stop`] are what happens to the volume as a whole.

mod compare;
mod config;
pub mod event;
mod flush;
mod job;
mod lease;
mod link;
mod loss;
mod members;
mod overlap;
mod read;
mod rebuild;
mod repair;
mod replica;
mod session;
mod start;
mod status;
mod stop;
mod submit;
mod task;
#[cfg(test)]
mod tests;
mod window;
mod write;

use std::collections::{BTreeMap, VecDeque};

use ankole_proto::{LayerId, ReplicaId};

use compare::Comparisons;
pub use config::{Limits, MirrorConfig};
use event::{Effect, Event, Orders, StopReason};
use job::{JobId, Jobs};
use lease::Held;
use overlap::RangeLocks;
use repair::Repairs;
use replica::Replica;
use start::Starting;
pub use status::{ComparisonStatus, RebuildProgress, ReplicaStatus, Status};
use stop::Stopping;
use task::ActiveTask;
use window::Window;

use crate::volume::{Failure, Moment, Operation, OperationId, Outcome};

/// The mirror of one volume.
#[derive(Debug)]
pub struct Mirror {
    config: MirrorConfig,
    orders: Orders,
    /// The writable layer, as this engine knows it: ahead of the orders between a task's end and
    /// its record.
    head: LayerId,
    phase: Phase,
    replicas: BTreeMap<ReplicaId, Replica>,
    last_link: u64,
    jobs: Jobs,
    locks: RangeLocks,
    window: Window,
    /// Jobs that have their lock and are to go on.
    ready: VecDeque<JobId>,
    /// Jobs that wait for the gate or the window, in order.
    parked: VecDeque<JobId>,
    /// Operations that came before the volume is served.
    early: VecDeque<(OperationId, Operation, Moment)>,
    /// Outcomes that wait for the leases.
    held: VecDeque<Held>,
    /// Jobs in the order in which their hold limit is looked at.
    stalls: VecDeque<(Moment, JobId)>,
    task: Option<ActiveTask>,
    repairs: Repairs,
    comparisons: Comparisons,
    /// Acknowledged writes may be gone, and no flush has told so yet.
    untold_loss: bool,
    /// A replica was chosen that may have lost what was acknowledged.
    unflushed_lost: bool,
    /// Since when no better replica answers than ones that may have lost what was not flushed.
    forgetful_since: Option<Moment>,
    initiators: u32,
    /// When an operation last came.
    last_user_at: Option<Moment>,
    /// When the last step was.
    now: Moment,
    /// Until then nobody is blamed for silence: this engine itself has not been running.
    excused_until: Moment,
    /// Something changed that more than one job may wait for.
    attention: bool,
}

/// How far the mirror as a whole is.
#[derive(Debug)]
enum Phase {
    /// Opens the replicas and makes them equal; nothing is served.
    Starting(Starting),
    /// Serves.
    Serving,
    /// Takes no more, drains and closes.
    Stopping(Stopping),
    /// Nothing is left to do.
    Stopped,
}

impl Phase {
    /// Whether outcomes may be told.
    fn serves(&self) -> bool {
        matches!(self, Self::Serving | Self::Stopping(_))
    }
}

impl Mirror {
    /// A mirror that has not begun: its first step connects to the replicas.
    pub fn new(config: MirrorConfig, orders: Orders) -> Self {
        let head = orders.head;
        let mut mirror = Self {
            phase: Phase::Starting(Starting::new()),
            config,
            orders: Orders {
                replicas: Vec::new(),
                revision: 0,
                ..orders.clone()
            },
            head,
            replicas: BTreeMap::new(),
            last_link: 0,
            jobs: Jobs::default(),
            locks: RangeLocks::default(),
            window: Window::frozen(),
            ready: VecDeque::new(),
            parked: VecDeque::new(),
            early: VecDeque::new(),
            held: VecDeque::new(),
            stalls: VecDeque::new(),
            task: None,
            repairs: Repairs::default(),
            comparisons: Comparisons::default(),
            untold_loss: false,
            unflushed_lost: false,
            forgetful_since: None,
            initiators: 0,
            last_user_at: None,
            now: Moment::default(),
            excused_until: Moment::default(),
            attention: true,
        };
        mirror.begin(orders);
        mirror
    }

    /// Takes in one event and adds what is to be done to `effects`, in order.
    pub fn step(&mut self, now: Moment, event: Event, effects: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Stopped) {
            if let Event::Submit { id, .. } = event {
                let outcome = Outcome::Failed(Failure::Stopping);
                effects.push(Effect::Complete { id, outcome });
            }
            return;
        }
        self.note_pause(now);
        self.now = now;
        self.take(now, event, effects);
        if matches!(self.phase, Phase::Stopped) {
            return;
        }
        self.pump(now, effects);
        if self.attention || self.wake_at().is_some_and(|at| now >= at) {
            self.tend(now, effects);
        }
    }

    fn take(&mut self, now: Moment, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Submit { id, operation } => self.submit(id, operation, now, effects),
            Event::Reply {
                replica,
                link,
                frame,
            } => self.reply(replica, link, frame, now, effects),
            Event::LinkOpened {
                replica,
                link,
                opened,
                sent_after_start,
            } => {
                let sent = Moment::after_start(sent_after_start);
                self.link_opened(replica, link, opened, sent, now, effects);
            }
            Event::LinkClosed {
                replica,
                link,
                reason,
            } => self.link_closed(replica, link, reason, now, effects),
            Event::Orders(orders) => self.apply_orders(orders, now, effects),
            Event::Recorded { record, result } => self.recorded(record, result, now, effects),
            Event::Initiators(count) => self.initiators = count,
            Event::Tick => self.attention = true,
            Event::Stop => self.begin_stop(now),
        }
    }

    /// Everything that more than one event may have moved, in an order in which each finds what
    /// the earlier ones did.
    fn tend(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        /// A pass may give the next one work; each pass that does moves a state forward.
        const PASSES_MAX: usize = 16;
        for _ in 0..PASSES_MAX {
            self.attention = false;
            self.expire(now, effects);
            self.judge_doubtful(now, effects);
            self.ask_losses(now, effects);
            self.connect_due(now, effects);
            self.settle_all(now, effects);
            self.check_flushes(now, effects);
            self.retry_reads(now, effects);
            self.tend_repairs(now);
            self.tend_task(now, effects);
            self.tend_rebuilds(now, effects);
            self.tend_comparison(now, effects);
            self.tend_start(now, effects);
            self.fail_stalled(now, effects);
            self.release_held(now, effects);
            self.ping_idle(now, effects);
            self.pump(now, effects);
            self.tend_stop(now, effects);
            if !self.attention || matches!(self.phase, Phase::Stopped) {
                break;
            }
        }
    }

    /// When the next [`Event::Tick`] is wanted at the latest; `None` once it has stopped.
    pub fn wake_at(&self) -> Option<Moment> {
        if matches!(self.phase, Phase::Stopped) {
            return None;
        }
        let limits = &self.config.limits;
        let replicas = self
            .replicas
            .values()
            .filter_map(|replica| self.replica_wake_at(replica));
        let others = [
            self.attention.then_some(self.now),
            self.start_wake_at(),
            self.stop_wake_at(),
            self.task_wake_at(),
            self.repairs.retry_at(self.now),
            self.comparison_wake_at(),
            self.forgetful_until().filter(|at| *at > self.now),
            self.stalls.front().map(|(at, _)| *at),
            Self::held_until(&self.held, limits.hold_limit),
            self.early.front().map(|(.., at)| *at + limits.hold_limit),
        ];
        replicas.chain(others.into_iter().flatten()).min()
    }

    /// Ends for good: a newer engine exists (INV-1).
    fn fence(&mut self, epoch: ankole_proto::Epoch, effects: &mut Vec<Effect>) {
        self.end(StopReason::Fenced(epoch), effects);
    }

    /// Answers everything, closes every link and stops.
    fn end(&mut self, reason: StopReason, effects: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Stopped) {
            return;
        }
        self.phase = Phase::Stopped;
        self.fail_all(Failure::Stopping, effects);
        for replica in self.replicas.values() {
            if let Some(link) = replica.link() {
                let replica = replica.id();
                effects.push(Effect::Disconnect { replica, link });
            }
        }
        self.replicas.clear();
        effects.push(Effect::Stopped(reason));
    }
}
