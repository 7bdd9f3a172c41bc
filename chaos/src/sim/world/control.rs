//! Agents and engines: started, ended, looked after.

use std::time::Duration;

use ankole_engine::agent::plan::Action;
use ankole_engine::mirror::event::Event;
use rand::Rng;

use super::super::agent::Record;
use super::super::checker::Verdict;
use super::super::engine::{Engine, EngineId, Start};
use super::super::network::Way;
use super::polls::Who;
use super::proposals::Grant;
use super::{Happening, World};

/// Between two looks of an agent at its engines.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long an engine waits for its first orders.
const ORDERS_WAIT: Duration = Duration::from_secs(30);
/// How long a process takes to start, in microseconds.
const SPAWN_US: std::ops::Range<u64> = 100..50_000;

impl World {
    pub(super) fn start_agent(&mut self, host: usize) {
        let now = self.schedule.now();
        if !self.hosts[host].agent.is_up() && !self.is_absent(host) {
            self.hosts[host].agent.start(now);
            self.beat_now(Who::Agent(host));
        }
    }

    pub(super) fn look(&mut self) -> Verdict {
        self.schedule.after(LOOK_INTERVAL, Happening::Look);
        for host in 0..self.hosts.len() {
            self.agent_round(host);
        }
        let now = self.schedule.now();
        let lost = self.engines.values().filter(|engine| {
            !engine.has_begun() && now.saturating_sub(engine.started) > ORDERS_WAIT
        });
        for engine in lost.map(Engine::id).collect::<Vec<_>>() {
            self.ended(engine, false);
        }
        Ok(())
    }

    /// An agent looks at its engines and does what is to be done.
    pub(super) fn agent_round(&mut self, host: usize) {
        let now = self.schedule.now();
        for action in self.hosts[host].agent.round(now) {
            self.note(format_args!("agent on n{}: {action:?}", host + 1));
            match action {
                Action::Start {
                    volume,
                    expected,
                    ended,
                } => {
                    let agent = self.hosts[host].agent.instance().unwrap_or_default();
                    self.ask_epoch(Grant {
                        host,
                        agent,
                        volume,
                        expected,
                        ended,
                    });
                }
                Action::Terminate(volume) => {
                    if let Some(engine) = self.engine_of(host, volume) {
                        self.schedule
                            .after(Duration::ZERO, Happening::StopEngine { engine });
                    }
                }
                Action::Kill(volume) => {
                    if let Some(engine) = self.engine_of(host, volume) {
                        self.ended(engine, false);
                    }
                }
            }
        }
    }

    fn engine_of(&self, host: usize, volume: ankole_proto::VolumeId) -> Option<EngineId> {
        let record = self.hosts[host].agent.records.get(&volume)?;
        record.running.then_some(record.engine)
    }

    pub(super) fn start_engine(&mut self, start: Start) {
        let now = self.schedule.now();
        self.note(format_args!("{start:?} starts"));
        let (id, record) = (
            start.id,
            Record {
                engine: start.id,
                epoch: start.epoch,
                port: start.port,
                alone: start.previous_ended,
                fenced: false,
                running: true,
            },
        );
        let agent = &mut self.hosts[start.host].agent;
        agent.records.insert(start.volume, record);
        let (host, volume) = (start.host, start.volume);
        self.engines.insert(id, Engine::new(start, now));
        self.summary.engines += 1;
        if let Some((_, hosts, until)) = self.split.take_if(|split| split.0 == volume) {
            for host in hosts {
                self.cut(id, host, &Way::BOTH, until.saturating_sub(now));
            }
        }
        self.next_call += 1;
        let call = self.next_call;
        self.calls.insert(Who::Engine(id), call);
        let spawn = Duration::from_micros(self.random.random_range(SPAWN_US));
        let who = Who::Engine(id);
        self.schedule.after(spawn, Happening::Beat { who, call });
        self.beat_now(Who::Agent(host));
    }

    /// An engine is told to end.
    pub(super) fn stop_engine(&mut self, id: EngineId) -> Verdict {
        match self.engines.get(&id) {
            Some(engine) if engine.has_begun() => self.step(id, Event::Stop),
            Some(_) => {
                self.ended(id, false);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// An engine is gone.
    pub(super) fn ended(&mut self, id: EngineId, fenced: bool) {
        let Some(engine) = self.engines.remove(&id) else {
            return;
        };
        self.calls.remove(&Who::Engine(id));
        for key in self.network.connections(|key| key.engine == id) {
            self.network.disconnect(key);
        }
        let host = engine.start.host;
        let agent = &mut self.hosts[host].agent;
        if let Some(record) = agent.records.get_mut(&engine.start.volume)
            && record.engine == id
        {
            record.running = false;
            record.fenced = fenced;
        }
        if agent.is_up() {
            self.beat_now(Who::Agent(host));
        }
    }

    /// The engine of a volume that is the newest.
    pub(super) fn newest(&self) -> Vec<EngineId> {
        let engines = self.engines.values();
        engines.map(Engine::id).collect()
    }
}
