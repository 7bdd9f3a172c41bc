//! Heartbeats of blockds, agents and engines: long polls that report and bring orders. They are
//! lost, late, and overtaken by later ones.

use std::time::Duration;

use ankole_engine::managers::orders::VolumeOrders;
use ankole_engine::mirror::event::Event;
use ankole_meta::reconcile::engine_orders;
use ankole_proto::rpc::v1::{
    AgentOrders, AgentReport, BlockdOrders, BlockdReport, EngineOrders, EngineReport,
};
use ankole_proto::{Epoch, NodeName, VolumeId};
use rand::Rng;

use super::super::checker::Verdict;
use super::super::engine::EngineId;
use super::super::fleet::clock;
use super::super::mutation::Mutation;
use super::super::network::delay;
use super::{Happening, World};

/// How long a blockd's heartbeat is held, and another daemon's.
const BLOCKD_HOLD: Duration = Duration::from_secs(1);
const HOLD: Duration = Duration::from_secs(2);
/// After which a heartbeat without answer is given up.
const ATTEMPT: Duration = Duration::from_secs(3);
const PACE_MIN: Duration = Duration::from_millis(20);
/// One heartbeat in so many is lost, on its way or back.
const LOST_ONE_IN: u32 = 60;
/// One heartbeat in so many is late.
const LATE_ONE_IN: u32 = 60;
const LATE_MAX_MS: u64 = 2_500;

/// Whose heartbeat it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    Blockd(usize),
    Agent(usize),
    Engine(EngineId),
}

/// A heartbeat that is held.
#[derive(Debug)]
pub(super) struct Poll {
    pub(super) who: Who,
    pub(super) call: u64,
    seen: u64,
    until: Duration,
    /// Up to which change of the state it is known to bring nothing new.
    idle_at: u64,
}

/// What a heartbeat says.
#[derive(Debug)]
pub(super) enum Report {
    Blockd(BlockdReport),
    Agent(AgentReport),
    Engine(EngineReport),
}

/// What it brings.
#[derive(Debug)]
pub(super) enum Orders {
    Blockd(BlockdOrders),
    Agent(AgentOrders),
    Engine(Box<EngineOrders>),
}

impl World {
    /// A daemon reports anew, whatever it waits for.
    pub(super) fn beat_now(&mut self, who: Who) {
        self.next_call += 1;
        let call = self.next_call;
        self.calls.insert(who, call);
        self.schedule
            .after(Duration::ZERO, Happening::Beat { who, call });
    }

    pub(super) fn beat(&mut self, who: Who, call: u64) -> Verdict {
        if self.calls.get(&who) != Some(&call) {
            return Ok(());
        }
        let now = self.schedule.now();
        let report = match who {
            Who::Blockd(host) => self.hosts[host].report(now).map(Report::Blockd),
            Who::Agent(host) => {
                let host = &self.hosts[host];
                host.agent.report(&host.node).map(Report::Agent)
            }
            Who::Engine(engine) => {
                let engine = self.engines.get(&engine);
                engine.map(|engine| Report::Engine(engine.report()))
            }
        };
        let Some(report) = report else {
            self.calls.remove(&who);
            return Ok(());
        };
        let mut way = delay(&mut self.random);
        if !self.healing && self.random.random_ratio(1, LATE_ONE_IN) {
            way += Duration::from_millis(self.random.random_range(0..LATE_MAX_MS));
        }
        if self.is_cut_off(who) || self.loses() {
            self.poll_failed(who, call, ATTEMPT);
        } else {
            let report = Box::new(report);
            self.schedule
                .after(way, Happening::Report { who, call, report });
        }
        Ok(())
    }

    fn loses(&mut self) -> bool {
        !self.healing && self.random.random_ratio(1, LOST_ONE_IN)
    }

    fn is_cut_off(&self, who: Who) -> bool {
        let now = self.schedule.now();
        let host = match who {
            Who::Blockd(host) | Who::Agent(host) => host,
            Who::Engine(engine) => match self.engines.get(&engine) {
                Some(engine) if !engine.deaf => engine.start.host,
                _ => return true,
            },
        };
        now < self.hosts[host].deaf_until || !self.fleet.is_led(now)
    }

    /// A daemon tries again after a while.
    pub(super) fn poll_failed(&mut self, who: Who, call: u64, after: Duration) {
        self.schedule.after(after, Happening::Beat { who, call });
    }

    /// A heartbeat reaches the leader, perhaps one that its sender has given up.
    pub(super) fn reported(&mut self, who: Who, call: u64, report: &Report) -> Verdict {
        let now = self.schedule.now();
        if !self.fleet.is_led(now) {
            self.poll_failed(who, call, ATTEMPT);
            return Ok(());
        }
        let (at, observed) = (clock(now), &mut self.fleet.observed);
        let (seen, hold) = match report {
            Report::Blockd(report) => {
                let _ = observed.blockd(at, report);
                (report.seen_revision, BLOCKD_HOLD)
            }
            Report::Agent(report) => {
                let _ = observed.agent(at, report);
                (report.seen_revision, HOLD)
            }
            Report::Engine(report) => {
                let volumes = self.fleet.state.volumes();
                let id: Option<VolumeId> = report.volume_id.parse().ok();
                let current = id
                    .and_then(|id| volumes.get(&id))
                    .map(|volume| volume.epoch);
                if current == Some(Epoch::from_raw(report.epoch)) {
                    let _ = observed.engine(at, report);
                }
                (report.seen_revision, HOLD)
            }
        };
        self.news();
        let until = now + hold;
        let poll = Poll {
            who,
            call,
            seen,
            until,
            idle_at: self.fleet.changes,
        };
        if !self.answer_poll(&poll) {
            self.polls.push(poll);
            self.schedule.at(until, Happening::Polls);
        }
        Ok(())
    }

    /// The state has changed, or time has passed: whoever is to be answered is.
    pub(super) fn answer_polls(&mut self) {
        let (now, changes) = (self.schedule.now(), self.fleet.changes);
        for poll in std::mem::take(&mut self.polls) {
            let idle = poll.idle_at == changes && now < poll.until;
            if idle || !self.answer_poll(&poll) {
                self.polls.push(Poll {
                    idle_at: changes,
                    ..poll
                });
            }
        }
    }

    fn answer_poll(&mut self, poll: &Poll) -> bool {
        let over = self.schedule.now() >= poll.until;
        let Some((revision, orders)) = self.orders_for(poll.who) else {
            return true;
        };
        if revision == poll.seen && poll.seen != 0 && !over {
            return false;
        }
        if revision != poll.seen {
            self.supersede(poll.who);
        }
        let mut way = delay(&mut self.random);
        if self.mutation == Some(Mutation::ReleaseEarly) {
            // Long enough for the engines of a group to be told apart.
            way += Duration::from_millis(self.random.random_range(0..2_000));
        }
        let (who, call) = (poll.who, poll.call);
        if self.loses() {
            self.poll_failed(who, call, ATTEMPT);
        } else {
            let orders = Box::new(orders);
            self.schedule
                .after(way, Happening::Ordered { who, call, orders });
        }
        true
    }

    fn supersede(&mut self, who: Who) {
        let observed = &mut self.fleet.observed;
        match who {
            Who::Blockd(host) => {
                let seen = observed.blockds.get_mut(&self.hosts[host].node);
                if let Some(seen) = seen {
                    seen.superseded = true;
                }
            }
            Who::Agent(host) => {
                let seen = observed.agents.get_mut(&self.hosts[host].node);
                if let Some(seen) = seen {
                    seen.superseded = true;
                }
            }
            Who::Engine(_) => {}
        }
    }

    fn orders_for(&self, who: Who) -> Option<(u64, Orders)> {
        let node = |host: usize| -> &NodeName { &self.hosts[host].node };
        Some(match who {
            Who::Blockd(host) => {
                let orders = self.fleet.blockd_orders(node(host));
                (orders.revision, Orders::Blockd(orders))
            }
            Who::Agent(host) => {
                let orders = self.fleet.agent_orders(node(host));
                (orders.revision, Orders::Agent(orders))
            }
            Who::Engine(engine) => {
                let volume = self.fleet.volume(self.engines.get(&engine)?.volume())?;
                let orders = engine_orders(&self.fleet.state, volume);
                (orders.revision, Orders::Engine(Box::new(orders)))
            }
        })
    }

    /// A heartbeat is answered. One that was given up brings nothing.
    pub(super) fn ordered(&mut self, who: Who, call: u64, orders: Orders) -> Verdict {
        if self.calls.get(&who) != Some(&call) {
            return Ok(());
        }
        if self.is_cut_off(who) {
            self.poll_failed(who, call, ATTEMPT);
            return Ok(());
        }
        self.schedule.after(PACE_MIN, Happening::Beat { who, call });
        match (who, orders) {
            (Who::Blockd(host), Orders::Blockd(orders)) => {
                let now = self.schedule.now();
                let (changed, notes) = self.hosts[host].follow(orders, now);
                for note in notes {
                    self.note(format_args!("blockd on n{}: {note}", host + 1));
                }
                if changed {
                    self.beat_now(who);
                }
            }
            (Who::Agent(host), Orders::Agent(orders)) => {
                if let Err(error) = self.hosts[host].agent.follow(orders) {
                    self.note(format_args!("agent on n{}: {error}", host + 1));
                }
                self.agent_round(host);
            }
            (Who::Engine(engine), Orders::Engine(orders)) => {
                return self.engine_ordered(engine, *orders);
            }
            _ => {}
        }
        Ok(())
    }

    fn engine_ordered(&mut self, id: EngineId, orders: EngineOrders) -> Verdict {
        let (grace, mutation) = (self.open_grace, self.mutation);
        let Some(engine) = self.engines.get_mut(&id) else {
            return Ok(());
        };
        let orders = match VolumeOrders::try_from(orders) {
            Ok(orders) => orders.orders,
            Err(error) => {
                self.note(format_args!("{id:?} cannot follow: {error}"));
                return Ok(());
            }
        };
        let news = orders.revision != engine.seen_revision;
        engine.seen_revision = orders.revision;
        if engine.has_begun() {
            return if news {
                self.step(id, Event::Orders(orders))
            } else {
                Ok(())
            };
        }
        if engine.begin(orders, grace, mutation) {
            return self.step(id, Event::Tick);
        }
        Ok(())
    }
}
