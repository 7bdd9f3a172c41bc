//! The leader's loop: plan, propose one after the other, and plan again when there is news.

use std::time::Duration;

use ankole_proto::rpc::v1::LogCommand;
use rand::Rng;

use super::super::checker::Verdict;
use super::proposals::Asker;
use super::{Happening, World};

/// The longest time between two plans.
const INTERVAL: Duration = Duration::from_millis(500);
/// The shortest.
const PAUSE: Duration = Duration::from_millis(20);

/// What the leader is about to propose.
#[derive(Debug, Default)]
pub(super) struct Planning {
    term: u64,
    /// What is left of the plan.
    queue: std::collections::VecDeque<LogCommand>,
    /// A proposal is on its way.
    waits: bool,
    /// Something was reported or agreed on since the last plan.
    news: bool,
    planned: Duration,
}

impl World {
    pub(super) fn news(&mut self) {
        if !self.planning.news {
            self.planning.news = true;
            let at = self.planning.planned + PAUSE;
            self.schedule.at(at, Happening::Plan { timed: false });
        }
    }

    pub(super) fn plan(&mut self, timed: bool) -> Verdict {
        let now = self.schedule.now();
        if timed {
            self.schedule
                .after(INTERVAL, Happening::Plan { timed: true });
        }
        if self.planning.term != self.fleet.term {
            self.planning = Planning {
                term: self.fleet.term,
                ..Planning::default()
            };
        }
        if !self.fleet.is_led(now) || self.planning.waits {
            return Ok(());
        }
        self.planning.news = false;
        self.planning.planned = now;
        let commands = self.fleet.plan(now, &mut self.random);
        self.planning.queue = commands.into();
        self.propose_next();
        Ok(())
    }

    fn propose_next(&mut self) {
        let Some(command) = self.planning.queue.pop_front() else {
            self.planning.waits = false;
            if self.planning.news {
                let at = self.planning.planned + PAUSE;
                self.schedule.at(at, Happening::Plan { timed: false });
            }
            return;
        };
        self.planning.waits = true;
        let term = self.planning.term;
        self.propose(Asker::Planner { term }, command);
    }

    pub(super) fn plan_goes_on(&mut self, term: u64, agreed: bool) {
        if self.planning.term != term {
            return;
        }
        if !agreed {
            self.planning.queue.clear();
        }
        self.propose_next();
    }

    /// The leader is lost; another leads after a while.
    pub(super) fn lose_leader(&mut self, time: Duration) {
        let now = self.schedule.now();
        self.fleet.lose_leader(now + time);
        // What was held is answered by nobody: its callers find out.
        for poll in std::mem::take(&mut self.polls) {
            let pause = Duration::from_micros(self.random.random_range(100..50_000));
            self.poll_failed(poll.who, poll.call, pause);
        }
    }
}
