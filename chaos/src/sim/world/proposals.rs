//! What is proposed to the managers, and what becomes of it on its way: lost before it is agreed
//! on, agreed on and the answer lost, answered late, agreed on twice.

use std::time::Duration;

use ankole_engine::mirror::event::{Event, Record, RecordRefusal};
use ankole_proto::rpc::v1::log_command::Command;
use ankole_proto::rpc::v1::{self as rpc, LogAnswer, LogCommand};
use ankole_proto::{Epoch, VolumeId};
use rand::Rng;

use super::super::checker::Verdict;
use super::super::engine::{EngineId, Start};
use super::super::fleet::record_refusal;
use super::super::mutation::Mutation;
use super::super::network::delay;
use super::operator::Act;
use super::{Happening, World};

/// How long a call to the managers is tried.
const CALL_DEADLINE_MS: std::ops::Range<u64> = 1_000..5_000;
/// One proposal in so many is lost before it is agreed on.
const LOST_ONE_IN: u32 = 40;
/// One answer of the managers in so many is lost after they have acted.
const LOST_ANSWER_ONE_IN: u32 = 30;
/// One answer of the managers in so many comes late.
const LATE_ANSWER_ONE_IN: u32 = 20;
const LATE_ANSWER_MAX_US: u64 = 900_000;
/// One proposal in so many is made again by its caller, who did not wait for the answer.
const TWICE_ONE_IN: u32 = 30;
const TWICE_AFTER_US: std::ops::Range<u64> = 1_000..2_000_000;

/// Who waits for an answer.
#[derive(Debug, Clone)]
pub(super) enum Asker {
    Engine {
        engine: EngineId,
        record: Record,
    },
    Agent(Grant),
    Planner {
        term: u64,
    },
    Operator(Act),
    /// Nobody any more.
    Nobody,
}

/// An epoch that an agent asks for.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) host: usize,
    /// Which agent process, by when it was started.
    pub(super) agent: u64,
    pub(super) volume: VolumeId,
    pub(super) expected: Epoch,
    pub(super) ended: Option<Epoch>,
}

/// A proposal on its way.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    pub(super) asker: Asker,
    pub(super) command: LogCommand,
    /// The leader's to whom it was made.
    term: u64,
}

/// What comes back; `None` when nothing does.
pub(super) type Answer = Option<LogAnswer>;

impl World {
    pub(super) fn propose(&mut self, asker: Asker, command: LogCommand) {
        let now = self.schedule.now();
        let heard = !self.is_deaf(&asker) && self.fleet.is_led(now);
        if !heard || (!self.healing && self.random.random_ratio(1, LOST_ONE_IN)) {
            self.drop_proposal(&asker, &command);
            return;
        }
        let mut way = delay(&mut self.random);
        if self.random.random_ratio(1, LATE_ANSWER_ONE_IN) {
            way += Duration::from_micros(self.random.random_range(0..LATE_ANSWER_MAX_US));
        }
        let proposal = Proposal {
            asker,
            command,
            term: self.fleet.term,
        };
        if self.random.random_ratio(1, TWICE_ONE_IN) && proposal.is_retried() {
            let again = Proposal {
                asker: Asker::Nobody,
                ..proposal.clone()
            };
            let after = Duration::from_micros(self.random.random_range(TWICE_AFTER_US));
            let proposal = Box::new(again);
            self.schedule
                .after(way + after, Happening::Commit { proposal });
        }
        let proposal = Box::new(proposal);
        self.schedule.after(way, Happening::Commit { proposal });
    }

    /// It never takes effect, and its caller hears nothing.
    fn drop_proposal(&mut self, asker: &Asker, command: &LogCommand) {
        self.never_happens(command);
        let wait = Duration::from_millis(self.random.random_range(CALL_DEADLINE_MS));
        self.answer(asker.clone(), None, wait);
    }

    fn is_deaf(&self, asker: &Asker) -> bool {
        let now = self.schedule.now();
        match asker {
            Asker::Engine { engine, .. } => self
                .engines
                .get(engine)
                .is_none_or(|engine| engine.deaf || now < self.hosts[engine.start.host].deaf_until),
            Asker::Agent(grant) => now < self.hosts[grant.host].deaf_until,
            Asker::Planner { .. } | Asker::Operator(_) | Asker::Nobody => false,
        }
    }

    pub(super) fn commit(&mut self, proposal: Proposal) -> Verdict {
        let stale = proposal.term != self.fleet.term;
        if stale && self.random.random_ratio(1, 2) {
            // It went with its leader.
            self.drop_proposal(&proposal.asker, &proposal.command);
            return Ok(());
        }
        let answer = self.fleet.apply(&proposal.command);
        let refusal = answer.refusal.as_ref().map(|refusal| &refusal.message);
        let command = &proposal.command.command;
        self.note(format_args!("log: {command:?}: {refusal:?}"));
        let again = matches!(proposal.asker, Asker::Nobody);
        self.committed(&proposal.command, &answer, again);
        let lost = !self.healing && self.random.random_ratio(1, LOST_ANSWER_ONE_IN);
        if stale || lost {
            let wait = Duration::from_millis(self.random.random_range(CALL_DEADLINE_MS));
            self.answer(proposal.asker, None, wait);
        } else {
            let way = delay(&mut self.random);
            self.answer(proposal.asker, Some(answer), way);
        }
        self.answer_polls();
        Ok(())
    }

    fn answer(&mut self, asker: Asker, answer: Answer, after: Duration) {
        // The orders that come with it are those of the moment at which it was answered.
        let orders = match (&asker, &answer) {
            (Asker::Engine { engine, .. }, Some(_)) => {
                let volume = self.engines.get(engine).map(|engine| engine.volume());
                volume.map(|volume| Box::new(self.fleet.engine_orders(volume)))
            }
            _ => None,
        };
        if matches!(asker, Asker::Engine { .. }) {
            self.fleet.forget_loss();
        }
        let answer = answer.map(Box::new);
        let happening = Happening::Answered {
            asker: Box::new(asker),
            answer,
            orders,
        };
        self.schedule.after(after, happening);
    }

    pub(super) fn answered(
        &mut self,
        asker: Asker,
        answer: Answer,
        orders: Option<Result<ankole_engine::mirror::event::Orders, RecordRefusal>>,
    ) -> Verdict {
        match asker {
            Asker::Engine { engine, record } => {
                let refusal = answer.as_ref().and_then(|answer| answer.refusal.as_ref());
                let result = match (refusal, orders) {
                    (Some(refusal), _) => Err(record_refusal(refusal)),
                    (None, Some(orders)) => orders,
                    (None, None) => Err(RecordRefusal::Unreachable("no answer".to_owned())),
                };
                return self.step(engine, Event::Recorded { record, result });
            }
            Asker::Agent(grant) => self.granted(&grant, answer),
            Asker::Planner { term } => self.plan_goes_on(term, answer.is_some()),
            Asker::Operator(act) => self.acted(&act, answer.as_ref()),
            Asker::Nobody => {}
        }
        Ok(())
    }

    /// An engine wants something on record.
    pub(super) fn record(&mut self, id: EngineId, record: Record) {
        let Some(engine) = self.engines.get(&id) else {
            return;
        };
        let (volume_id, epoch) = (engine.volume().to_string(), engine.start.epoch.raw());
        let command = match &record {
            Record::ReplicaLost { replica, reason } => {
                Command::ReplicaLost(rpc::ReplicaLostCommand {
                    volume_id,
                    epoch,
                    replica_id: replica.to_string(),
                    reason: reason.clone(),
                    by_managers: false,
                })
            }
            Record::ReplicaInSync { replica } => {
                Command::ReplicaInSync(rpc::ReplicaInSyncCommand {
                    volume_id,
                    epoch,
                    replica_id: replica.to_string(),
                })
            }
            Record::TaskDone { task, refusal } => Command::TaskDone(rpc::TaskDoneCommand {
                volume_id,
                epoch,
                task_id: task.0,
                refusal: refusal.clone().unwrap_or_default(),
            }),
        };
        let command = self.fleet.entry(self.schedule.now(), command);
        let asker = Asker::Engine { engine: id, record };
        self.propose(asker, command);
    }

    /// An agent wants an epoch.
    pub(super) fn ask_epoch(&mut self, grant: Grant) {
        let command = Command::GrantEpoch(rpc::GrantEpochCommand {
            volume_id: grant.volume.to_string(),
            node: self.hosts[grant.host].node.to_string(),
            expected_epoch: grant.expected.raw(),
        });
        let command = LogCommand {
            request_id: format!("{:032x}", self.random.random::<u128>()),
            ..self.fleet.entry(self.schedule.now(), command)
        };
        self.propose(Asker::Agent(grant), command);
    }

    fn granted(&mut self, grant: &Grant, answer: Answer) {
        let host = &mut self.hosts[grant.host];
        if host.agent.instance() != Some(grant.agent) {
            return;
        }
        let port = host.agent.granted(grant.volume);
        let granted = answer.filter(|answer| answer.refusal.is_none());
        let Some((port, granted)) = port.zip(granted) else {
            self.agent_round(grant.host);
            return;
        };
        let epoch = Epoch::from_raw(granted.epoch);
        let twice = self.mutation == Some(Mutation::GrantTwice);
        if epoch <= grant.expected && !twice {
            self.agent_round(grant.host);
            return;
        }
        let ended = grant.ended.is_some_and(|ended| ended.next() == epoch);
        let host = &self.hosts[grant.host];
        let start = Start {
            id: EngineId(self.next_engine),
            volume: grant.volume,
            epoch,
            host: grant.host,
            node: host.node.clone(),
            port,
            previous_ended: ended || self.mutation == Some(Mutation::AssumeEnded),
        };
        self.next_engine += 1;
        self.start_engine(start);
    }
}

impl Proposal {
    /// Whether its caller tries again by itself.
    fn is_retried(&self) -> bool {
        matches!(self.asker, Asker::Engine { .. } | Asker::Agent(_))
    }
}
