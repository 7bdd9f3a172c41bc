//! What clients ask, and what they are answered.

use std::time::Duration;

use ankole_engine::volume::{Failure, Operation, OperationId, Outcome};
use ankole_proto::{Extent, VolumeId};
use bytes::Bytes;
use rand::Rng;

use super::super::checker::{self, Checker, Verdict};
use super::super::engine::{Engine, EngineId, Expected, Waiting};
use super::super::history::{Content, WriteId};
use super::super::mutation::Mutation;
use super::super::workload::{self, Ask};
use super::absence::TRICKLE;
use super::model::Model;
use super::{Happening, OPERATIONS_MAX, World};

/// The media are looked at after one flush in so many.
const MEDIA_ONE_IN: u32 = 16;

impl World {
    pub(super) fn ask(&mut self) -> Verdict {
        if !self.healing {
            let pause = Duration::from_micros(self.random.random_range(0..20_000));
            self.schedule.after(pause, Happening::Ask);
        } else if self.absence.is_some() {
            self.schedule.after(TRICKLE, Happening::Ask);
            if !self.is_sitting_out() {
                return Ok(());
            }
        }
        let free: Vec<EngineId> = self
            .engines
            .values()
            .filter(|engine| engine.has_clients() && engine.waiting.len() < OPERATIONS_MAX)
            .map(|engine| engine.id())
            .collect();
        if free.is_empty() {
            return Ok(());
        }
        let engine = free[self.random.random_range(0..free.len())];
        let Some(size) = self.engines.get(&engine).and_then(Engine::size) else {
            return Ok(());
        };
        let ask = workload::next(&mut self.random, size);
        self.submit(engine, ask)
    }

    pub(super) fn submit(&mut self, id: EngineId, ask: Ask) -> Verdict {
        self.note(format_args!("{id:?} is asked {ask:?}"));
        let now = self.schedule.now();
        if self.mutation == Some(Mutation::ReadPastMirror)
            && let Ask::Read(extent) = ask
            && let Some(data) = self.peek(id, extent)
            && let Some(model) = self.model_of(id)
        {
            let judged = model.history.read(id, extent, &data, now, now);
            return judged.map_err(|found| checker::of_read(&found));
        }
        if self.model_of(id).is_none() {
            // Its volume is gone.
            return Ok(());
        }
        let (operation, waiting) = self.operation(id, ask);
        if self.mutation == Some(Mutation::AcknowledgeEarly)
            && let Waiting::Mutation { write, .. } = waiting
            && let Some(model) = self.model_of(id)
        {
            model.history.acknowledge(write, false, now);
        }
        let Some(engine) = self.engines.get_mut(&id) else {
            return Ok(());
        };
        let event = engine.submit(operation, waiting);
        self.step(id, event)
    }

    fn operation(&mut self, id: EngineId, ask: Ask) -> (Operation, Waiting) {
        let now = self.schedule.now();
        let mut begin = |extent, content| match self.model_of(id) {
            Some(model) => model.history.begin(id, extent, content, now),
            None => WriteId(0),
        };
        let mutation = |write, durable, extent| Waiting::Mutation {
            write,
            durable,
            extent,
        };
        match ask {
            Ask::Read(extent) => {
                let waiting = Waiting::Read { extent, begin: now };
                (Operation::Read { extent }, waiting)
            }
            Ask::Write(extent, fua) => {
                let write = begin(extent, Content::Number);
                let data = self.data_of(id, write, extent);
                let operation = Operation::Write { extent, data, fua };
                (operation, mutation(write, fua, extent))
            }
            Ask::Unmap(extent) => {
                let write = begin(extent, Content::Zeros);
                let operation = Operation::Unmap { extent };
                (operation, mutation(write, false, extent))
            }
            Ask::WriteZeroes(extent, fua) => {
                let write = begin(extent, Content::Zeros);
                let operation = Operation::WriteZeroes { extent, fua };
                (operation, mutation(write, fua, extent))
            }
            Ask::CompareAndWrite(extent, fua) => {
                let write = begin(extent, Content::Number);
                let data = self.data_of(id, write, extent);
                // What some replica holds now: mostly, but not always, what is found then.
                let expected = self.peek(id, extent).unwrap_or_else(|| data.clone());
                let operation = Operation::CompareAndWrite {
                    extent,
                    expected: expected.clone(),
                    data,
                    fua,
                };
                let waiting = Waiting::Compare {
                    write,
                    durable: fua,
                    extent,
                    expected: Expected(expected),
                    begin: now,
                };
                (operation, waiting)
            }
            Ask::Or(extent, fua) => {
                // Sets no bit, but reads and writes: a write that comes between is lost.
                let zeros = vec![0; usize::try_from(extent.length()).unwrap_or_default()];
                let data = Bytes::from(zeros);
                (Operation::Or { extent, data, fua }, Waiting::Same)
            }
            Ask::Copy(extent, fua) if self.mutation == Some(Mutation::CopyUnlocked) => {
                let waiting = Waiting::Torn { extent, fua };
                (Operation::Read { extent }, waiting)
            }
            Ask::Copy(extent, fua) => {
                // As with the OR of zeros.
                let (from, to) = (extent, extent);
                (Operation::Copy { from, to, fua }, Waiting::Same)
            }
            Ask::Flush => (Operation::Flush, Waiting::Flush { begin: now }),
        }
    }

    fn data_of(&mut self, engine: EngineId, write: WriteId, extent: Extent) -> Bytes {
        let model = self.model_of(engine);
        Bytes::from(model.map_or(Vec::new(), |model| model.history.data(write, extent)))
    }

    /// What the volume of an engine must hold, unless it is gone.
    fn model_of(&mut self, engine: EngineId) -> Option<&mut Model> {
        let volume = self.engines.get(&engine)?.volume();
        self.models.get_mut(&volume)
    }

    /// What some in-sync replica holds there now.
    fn peek(&mut self, engine: EngineId, extent: Extent) -> Option<Bytes> {
        let in_sync = self.fleet.in_sync(self.engines.get(&engine)?.volume());
        self.hosts
            .iter_mut()
            .flat_map(|host| host.slots.values_mut())
            .filter(|slot| in_sync.contains(&slot.id))
            .find_map(|slot| slot.peek(extent))
    }

    pub(super) fn complete(
        &mut self,
        id: EngineId,
        operation: OperationId,
        outcome: Outcome,
    ) -> Verdict {
        let Some(engine) = self.engines.get_mut(&id) else {
            return Ok(());
        };
        let Some(waiting) = engine.waiting.remove(&operation) else {
            let what = format!("{id:?} answered {operation:?} twice, or unasked");
            return Err(Checker::Liveness.says()(what));
        };
        let text = brief(&outcome);
        self.note(format_args!("{id:?} answers {waiting:?}: {text}"));
        match outcome {
            Outcome::Done(data) => self.done(id, waiting, &data),
            Outcome::Failed(failure) => {
                self.summary.failures += 1;
                if failure == Failure::Lost {
                    // The engine has picked a replica that may lack something, and says so.
                    self.note_pick(id);
                }
                match waiting {
                    Waiting::Mutation { write, .. } | Waiting::Compare { write, .. } => {
                        if let Some(model) = self.model_of(id) {
                            model.history.fail(write);
                        }
                    }
                    Waiting::Flush { .. } => {
                        if let Some(model) = self.model_of(id) {
                            model.history.flush_failed(id);
                        }
                    }
                    Waiting::Read { .. } | Waiting::Torn { .. } | Waiting::Same => {}
                }
                Ok(())
            }
            Outcome::Miscompare { .. } => {
                let Waiting::Compare { write, .. } = waiting else {
                    let what = format!("{waiting:?} was answered with a miscompare");
                    return Err(Checker::Liveness.says()(what));
                };
                let now = self.schedule.now();
                if let Some(model) = self.model_of(id) {
                    model.history.refuse(write, now);
                }
                Ok(())
            }
        }
    }

    fn done(&mut self, id: EngineId, waiting: Waiting, data: &Bytes) -> Verdict {
        match waiting {
            Waiting::Read { extent, begin } => {
                if data.len() as u64 != extent.length() {
                    let what = format!("{extent} was read as {} bytes", data.len());
                    return Err(Checker::Liveness.says()(what));
                }
                self.summary.reads += 1;
                self.judge_read(id, extent, data, begin)
            }
            Waiting::Compare {
                write,
                durable,
                extent,
                expected,
                begin,
            } => {
                self.judge_read(id, extent, &expected.0, begin)?;
                self.acknowledge(id, write, durable, extent)
            }
            Waiting::Mutation {
                write,
                durable,
                extent,
            } => self.acknowledge(id, write, durable, extent),
            Waiting::Same => Ok(()),
            Waiting::Torn { extent, fua } => {
                let data = data.clone();
                let operation = Operation::Write { extent, data, fua };
                match self.engines.get_mut(&id) {
                    Some(engine) => {
                        let event = engine.submit(operation, Waiting::Same);
                        self.step(id, event)
                    }
                    None => Ok(()),
                }
            }
            Waiting::Flush { begin } => {
                self.summary.flushes += 1;
                if let Some(model) = self.model_of(id) {
                    model.history.flush(id, begin);
                }
                self.check_media(id)
            }
        }
    }

    /// Looks at the media behind some of the flushes.
    fn check_media(&mut self, id: EngineId) -> Verdict {
        if !self.random.random_ratio(1, MEDIA_ONE_IN) {
            return Ok(());
        }
        let volume = self.engines.get(&id).map(Engine::volume);
        let Some(volume) = volume.and_then(|id| self.fleet.volume(id)) else {
            return Ok(());
        };
        let Some(model) = self.models.get(&volume.id) else {
            return Ok(());
        };
        let seed = self.random.random();
        checker::flushed::check(&self.hosts, &self.fleet, volume, model, seed)
            .map_err(Checker::Flushed.says())
    }

    fn judge_read(
        &mut self,
        id: EngineId,
        extent: Extent,
        data: &[u8],
        begin: Duration,
    ) -> Verdict {
        let now = self.schedule.now();
        let Some(model) = self.model_of(id) else {
            return Ok(());
        };
        let judged = model.history.read(id, extent, data, begin, now);
        if judged.is_err() {
            self.note_copies(id, extent);
        }
        judged.map_err(|found| checker::of_read(&found))
    }

    /// Notes whether the engine relies on a replica that had lost what was not flushed: then it has
    /// picked it all the same, as the best within reach.
    fn note_pick(&mut self, id: EngineId) {
        let Some(engine) = self.engines.get(&id) else {
            return;
        };
        let mut picked = false;
        for slot in self
            .hosts
            .iter_mut()
            .flat_map(|host| host.slots.values_mut())
        {
            // It has what this engine acknowledges from now on. What the engine has not heard of
            // yet it cannot have noticed.
            let serves = slot
                .tenant()
                .is_some_and(|tenant| tenant.engine == id && engine.knows(tenant.link));
            if serves && self.fleet.is_in_sync(slot.id) {
                picked |= !slot.intact;
                slot.intact = true;
            }
        }
        if picked && let Some(model) = self.model_of(id) {
            model.history.power_cut();
        }
    }

    fn acknowledge(
        &mut self,
        id: EngineId,
        write: WriteId,
        durable: bool,
        extent: Extent,
    ) -> Verdict {
        self.summary.writes += 1;
        let Some(volume) = self.engines.get(&id).map(Engine::volume) else {
            return Ok(());
        };
        self.note_pick(id);
        let now = self.schedule.now();
        if let Some(model) = self.models.get_mut(&volume) {
            model.history.acknowledge(write, durable, now);
        }
        self.note_power_loss(volume);
        if self.is_being_changed(volume, extent) {
            // What is acknowledged now was done a while ago, and the next one is under way.
            return Ok(());
        }
        let judged = checker::acknowledged::check(&mut self.hosts, &self.fleet, volume, extent);
        let judged = judged.map_err(Checker::Acknowledged.says());
        let judged = judged.and_then(|data| match data {
            Some(data) => checker::losses::check(&self.hosts, &self.fleet, volume, extent, &data)
                .map_err(Checker::Losses.says()),
            None => Ok(()),
        });
        if judged.is_err() {
            self.note_copies(id, extent);
        }
        judged
    }

    /// Whether a client waits for another mutation there.
    fn is_being_changed(&self, volume: VolumeId, extent: Extent) -> bool {
        let engines = self.engines.values();
        engines
            .filter(|engine| engine.volume() == volume)
            .flat_map(|engine| engine.waiting.values())
            .any(|waiting| match waiting {
                Waiting::Mutation { extent: other, .. }
                | Waiting::Compare { extent: other, .. } => other.overlaps(extent),
                Waiting::Read { .. }
                | Waiting::Torn { .. }
                | Waiting::Same
                | Waiting::Flush { .. } => false,
            })
    }

    /// What each replica holds of an extent, layer by layer, by the numbers of the writes: for
    /// people who read the trace.
    fn note_copies(&mut self, engine: EngineId, extent: Extent) {
        let Some(volume) = self.engines.get(&engine).map(Engine::volume) else {
            return;
        };
        let mut lines = Vec::new();
        for host in &mut self.hosts {
            let node = host.node.to_string();
            for slot in host.slots.values_mut() {
                if slot.volume == volume {
                    lines.extend(slot.copies(&node, extent));
                }
            }
        }
        for line in lines {
            self.note(format_args!("{line}"));
        }
    }
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(data) => format!("done, {} bytes", data.len()),
        other => format!("{other:?}"),
    }
}
