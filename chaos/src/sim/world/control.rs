//! The managers at work: records, repairs, new engines.

use std::time::Duration;

use ankole_engine::mirror::event::{Event, Record, RecordRefusal};
use ankole_proto::ReplicaId;
use rand::Rng;

use super::super::checker::{Checker, Verdict};
use super::super::engine::{Engine, EngineId};
use super::super::managers::Mode;
use super::super::mutation::Mutation;
use super::super::network::delay;
use super::{HOSTS, Happening, Predecessor, RECONCILE_INTERVAL, World};

/// How long an engine must at least have heard nothing of a replica that has everything before it
/// goes on with one that may not.
const FORGETFUL_PATIENCE: Duration = Duration::from_secs(15);
/// How long an engine's client tries to reach the managers.
const RECORD_DEADLINE: Duration = Duration::from_secs(1);
/// One answer of the managers in so many is lost after they have acted.
const LOST_ANSWER_ONE_IN: u32 = 20;
/// One answer of the managers in so many comes late.
const LATE_ANSWER_ONE_IN: u32 = 20;
const LATE_ANSWER_MAX_US: u64 = 900_000;

impl World {
    pub(super) fn record(&mut self, id: EngineId, record: Record) {
        let now = self.schedule.now();
        let Some(engine) = self.engines.get(&id) else {
            return;
        };
        let (epoch, deaf) = (engine.epoch, engine.deaf);
        let nobody = Err(RecordRefusal::Unreachable("no answer".to_owned()));
        if deaf || now < self.managers.unreachable_until {
            self.answer_record(id, record, nobody, RECORD_DEADLINE);
            return;
        }
        let result = self.managers.record(epoch, &record, now);
        let refusal = result.as_ref().err();
        self.note(format_args!("managers: {id:?} {record:?}: {refusal:?}"));
        if result.is_ok() {
            self.recorded(id, &record);
        }
        if self.random.random_ratio(1, LOST_ANSWER_ONE_IN) {
            self.answer_record(id, record, nobody, RECORD_DEADLINE);
        } else {
            let mut late = delay(&mut self.random);
            if self.random.random_ratio(1, LATE_ANSWER_ONE_IN) {
                late += Duration::from_micros(self.random.random_range(0..LATE_ANSWER_MAX_US));
            }
            self.answer_record(id, record, result, late);
        }
        self.tell_engines();
    }

    fn answer_record(
        &mut self,
        engine: EngineId,
        record: Record,
        result: Result<ankole_engine::mirror::event::Orders, RecordRefusal>,
        after: Duration,
    ) {
        let happening = Happening::Recorded {
            engine,
            record,
            result: result.map(Box::new),
        };
        self.schedule.after(after, happening);
    }

    /// Something has been committed.
    fn recorded(&mut self, id: EngineId, record: &Record) {
        let now = self.schedule.now();
        match record {
            Record::ReplicaInSync { replica } => {
                if let Some(host) = self.host_of(*replica) {
                    host.intact = true;
                }
            }
            Record::ReplicaLost { replica, .. } => self.lost_intact(id, *replica),
            Record::TaskDone { refusal, .. } => {
                if let Some(revert) = self.revert.take_if(|_| !self.managers.has_task()) {
                    if refusal.is_none() {
                        self.history.acknowledge(revert, true, now);
                        self.summary.reverts += 1;
                    } else {
                        self.history.refuse(revert, now);
                    }
                } else if refusal.is_none() {
                    self.summary.snapshots += 1;
                }
            }
        }
    }

    /// An engine that reaches only replicas whose hosts lost their power may drop one that has it
    /// all, and with it what was not flushed; but only when it has waited for it and says so. What
    /// goes in any other way counts as kept, and is missed when it is read.
    fn lost_intact(&mut self, engine: EngineId, replica: ReplicaId) {
        let now = self.schedule.now();
        let faulted = self
            .host_of(replica)
            .is_some_and(|host| host.fault().is_some());
        let Some(engine) = self.engines.get(&engine) else {
            return;
        };
        let waited = faulted || engine.silence(replica, now) >= FORGETFUL_PATIENCE;
        if engine.told_loss() && waited {
            self.note_power_loss();
        }
    }

    /// The record changed: every engine hears of it.
    pub(super) fn tell_engines(&mut self) {
        for engine in self.engines.keys().copied().collect::<Vec<_>>() {
            let delay = delay(&mut self.random);
            self.schedule.after(delay, Happening::Orders { engine });
        }
    }

    pub(super) fn orders(&mut self, id: EngineId) -> Verdict {
        let deaf = self.engines.get(&id).is_none_or(|engine| engine.deaf);
        if deaf || self.schedule.now() < self.managers.unreachable_until {
            return Ok(());
        }
        let orders = self.managers.orders();
        self.step(id, Event::Orders(orders))
    }

    pub(super) fn reconcile(&mut self) -> Verdict {
        self.schedule
            .after(RECONCILE_INTERVAL, Happening::Reconcile);
        if self.schedule.now() < self.managers.unreachable_until {
            return Ok(());
        }
        if self.mutation == Some(Mutation::DropLast) {
            let down = self.hosts.iter().filter(|host| !host.is_up());
            let down: Vec<ReplicaId> = down.map(|host| host.replica).collect();
            down.into_iter().for_each(|id| self.managers.drop_from(id));
        }
        let (lost, rebuilding) = (Mode::OutOfSync, Mode::Rebuilding);
        let lost: Vec<ReplicaId> = self
            .managers
            .with(lost)
            .chain(self.managers.with(rebuilding))
            .collect();
        for replica in lost {
            self.bring_back(replica).map_err(Checker::Liveness.says())?;
        }
        self.remove_layers();
        self.tell_engines();
        if self.engines.is_empty() {
            self.schedule.after(Duration::ZERO, Happening::StartEngine);
        }
        Ok(())
    }

    /// A replica that was lost is rebuilt, when its host is up; a faulted one is replaced.
    fn bring_back(&mut self, replica: ReplicaId) -> Result<(), String> {
        let now = self.schedule.now();
        let Some(host) = self.host_of(replica).filter(|host| host.is_up()) else {
            return Ok(());
        };
        if host.fault().is_none() {
            self.managers.start_rebuild(replica);
            return Ok(());
        }
        let new = ReplicaId::from_bits(self.next_replica);
        let spec = self.spec(new);
        let Some(host) = self.host_of(replica) else {
            return Ok(());
        };
        let created = host.create(&spec);
        host.start(now);
        if let Err(error) = created {
            // A full disk has no room for it; it is tried again.
            self.note(format_args!("managers: no new replica: {error}"));
            return if self.healing { Err(error) } else { Ok(()) };
        }
        self.next_replica += 1;
        self.managers.replace(replica, new);
        self.note(format_args!(
            "managers: {replica} is broken, replaced by {new}"
        ));
        Ok(())
    }

    /// Hosts hear which layers are to go, again and again until they are gone.
    fn remove_layers(&mut self) {
        let unwanted = self.managers.unwanted.clone();
        for host in &mut self.hosts {
            if self.managers.mode(host.replica) == Some(Mode::InSync) {
                host.remove_layers(&unwanted);
            }
        }
    }

    pub(super) fn start_engine(&mut self) -> Verdict {
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
        let alone = self.predecessor.ended && self.predecessor.alone
            || self.mutation == Some(Mutation::AssumeEnded);
        let epoch = self.managers.epoch;
        self.note(format_args!(
            "{id:?} starts on {node} with epoch {epoch}, alone: {alone}"
        ));
        let engine = Engine::new(
            id,
            node,
            alone,
            &self.managers,
            now,
            self.open_grace,
            self.mutation,
        );
        self.engines.insert(id, engine);
        self.predecessor = Predecessor {
            ended: false,
            alone,
        };
        self.summary.engines += 1;
        self.tell_engines();
        self.step(id, Event::Tick)
    }
}
