//! What clients ask, and what they are answered.

use std::time::Duration;

use ankole_engine::volume::{Operation, OperationId, Outcome};
use ankole_proto::Extent;
use bytes::Bytes;
use rand::Rng;

use super::super::checker::{self, Checker, Finding, Verdict};
use super::super::engine::{EngineId, Waiting};
use super::super::history::{Content, History};
use super::super::managers::Mode;
use super::super::mutation::Mutation;
use super::super::workload::{self, Ask};
use super::{Happening, OPERATIONS_MAX, World};

impl World {
    pub(super) fn ask(&mut self) -> Verdict {
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

    pub(super) fn submit(&mut self, id: EngineId, ask: Ask) -> Verdict {
        self.note(format_args!("{id:?} is asked {ask:?}"));
        let now = self.schedule.now();
        if self.mutation == Some(Mutation::ReadPastMirror)
            && let Ask::Read(extent) = ask
            && let Some(data) = self.peek(extent)
        {
            let judged = self.history.read(id, extent, &data, now, now);
            return judged.map_err(Checker::History.says());
        }
        let (operation, waiting) = self.operation(id, ask);
        if self.mutation == Some(Mutation::AcknowledgeEarly)
            && let Waiting::Mutation { write, .. } = waiting
        {
            self.history.acknowledge(write, false, now);
        }
        let Some(engine) = self.engines.get_mut(&id) else {
            return Ok(());
        };
        let event = engine.submit(operation, waiting);
        self.step(id, event)
    }

    fn operation(&mut self, id: EngineId, ask: Ask) -> (Operation, Waiting) {
        let now = self.schedule.now();
        let mut begin = |extent, content| self.history.begin(id, extent, content, now);
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
                let data = Bytes::from(History::data(write, extent));
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
                let data = Bytes::from(History::data(write, extent));
                // What some replica holds now: mostly, but not always, what is found then.
                let expected = self.peek(extent).unwrap_or_else(|| data.clone());
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
                    expected,
                    begin: now,
                };
                (operation, waiting)
            }
            Ask::Or(extent, fua) => {
                // Sets no bit, but reads and writes: a write that comes between is lost.
                let zeros = vec![0; usize::try_from(extent.length()).unwrap_or_default()];
                let data = Bytes::from(zeros);
                (Operation::Or { extent, data, fua }, Waiting::Or)
            }
            Ask::Flush => (Operation::Flush, Waiting::Flush { begin: now }),
        }
    }

    /// What some in-sync replica holds there now.
    fn peek(&mut self, extent: Extent) -> Option<Bytes> {
        let in_sync: Vec<_> = self.managers.with(Mode::InSync).collect();
        self.hosts
            .iter_mut()
            .filter(|host| in_sync.contains(&host.replica))
            .find_map(|host| host.peek(extent))
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
            Outcome::Failed(_) => {
                self.summary.failures += 1;
                match waiting {
                    Waiting::Mutation { write, .. } | Waiting::Compare { write, .. } => {
                        self.history.fail(write);
                    }
                    Waiting::Flush { .. } => self.history.flush_failed(id),
                    Waiting::Read { .. } | Waiting::Or => {}
                }
                Ok(())
            }
            Outcome::Miscompare { .. } => {
                let Waiting::Compare { write, .. } = waiting else {
                    let what = format!("{waiting:?} was answered with a miscompare");
                    return Err(Checker::Liveness.says()(what));
                };
                self.history.refuse(write, self.schedule.now());
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
                self.judge_read(id, extent, &expected, begin)?;
                self.acknowledge(id, write, durable, extent)
            }
            Waiting::Mutation {
                write,
                durable,
                extent,
            } => self.acknowledge(id, write, durable, extent),
            Waiting::Or => Ok(()),
            Waiting::Flush { begin } => {
                self.summary.flushes += 1;
                self.history.flush(id, begin);
                Ok(())
            }
        }
    }

    fn judge_read(
        &mut self,
        id: EngineId,
        extent: Extent,
        data: &[u8],
        begin: Duration,
    ) -> Verdict {
        let now = self.schedule.now();
        let judged = self.history.read(id, extent, data, begin, now);
        if judged.is_err() {
            self.note_copies(extent);
        }
        judged.map_err(Checker::History.says())
    }

    fn acknowledge(
        &mut self,
        id: EngineId,
        write: super::super::history::WriteId,
        durable: bool,
        extent: Extent,
    ) -> Verdict {
        self.summary.writes += 1;
        let mut picked = false;
        for host in &mut self.hosts {
            // It has what this engine acknowledges from now on. When it had lost what was not
            // flushed, the engine has picked it all the same, as the best within reach.
            // What it has not heard of yet it cannot have noticed.
            let engine = self.engines.get(&id);
            let serves = host.tenant().is_some_and(|tenant| {
                tenant.engine == id && engine.is_some_and(|engine| engine.knows(tenant.link))
            });
            if serves && self.managers.mode(host.replica) == Some(Mode::InSync) {
                picked |= !host.intact;
                host.intact = true;
            }
        }
        if picked {
            self.history.power_cut();
        }
        self.history
            .acknowledge(write, durable, self.schedule.now());
        self.note_power_loss();
        if self.is_being_changed(extent) {
            // What is acknowledged now was done a while ago, and the next one is under way.
            return Ok(());
        }
        let judged = checker::acknowledged::check(&mut self.hosts, &self.managers, extent);
        if judged.is_err() {
            self.note_copies(extent);
        }
        judged.map_err(|what| Finding {
            by: Checker::Acknowledged,
            what,
        })
    }

    /// Whether a client waits for another mutation there.
    fn is_being_changed(&self, extent: Extent) -> bool {
        let engines = self.engines.values();
        engines
            .flat_map(|engine| engine.waiting.values())
            .any(|waiting| match waiting {
                Waiting::Mutation { extent: other, .. }
                | Waiting::Compare { extent: other, .. } => other.overlaps(extent),
                Waiting::Read { .. } | Waiting::Or | Waiting::Flush { .. } => false,
            })
    }

    /// What each replica holds of an extent, layer by layer, by the numbers of the writes: for
    /// people who read the trace.
    fn note_copies(&mut self, extent: Extent) {
        for host in 0..self.hosts.len() {
            for line in self.hosts[host].copies(extent) {
                self.note(format_args!("{line}"));
            }
        }
    }
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(data) => format!("done, {} bytes", data.len()),
        other => format!("{other:?}"),
    }
}
