//! Faults striking.

use std::time::Duration;

use ankole_engine::mirror::event::LinkFailure;
use ankole_proto::VolumeId;
use rand::Rng;

use super::super::checker::Verdict;
use super::super::engine::{Engine, EngineId};
use super::super::faults::{self, Fault};
use super::super::network::Way;
use super::{Happening, World};

impl World {
    pub(super) fn strike(&mut self) -> Verdict {
        if self.healing {
            return Ok(());
        }
        let pause = faults::pause(&mut self.random);
        self.schedule.after(pause, Happening::Strike);
        let fault = faults::next(&mut self.random, self.hosts.len(), self.cursed);
        self.note(format_args!("FAULT {fault:?}"));
        self.summary.faults += 1;
        self.apply(fault)
    }

    fn apply(&mut self, fault: Fault) -> Verdict {
        match fault {
            Fault::KillHost(host, away) => self.kill_host(host, away),
            Fault::CutPower(host, away) => self.cut_power(host, away),
            Fault::CutAllPower(away) => {
                (0..self.hosts.len()).for_each(|host| self.cut_power(host, away));
            }
            Fault::KillAll(away) => {
                for host in 0..self.hosts.len() {
                    self.kill_host(host, away);
                    self.kill_agent(host, away);
                }
                for engine in self.newest() {
                    self.ended(engine, false);
                }
            }
            Fault::KillAgent(host, away) => self.kill_agent(host, away),
            Fault::KillEngine => {
                if let Some(engine) = self.some_engine() {
                    self.ended(engine, false);
                }
            }
            Fault::Takeover => self.take_over(),
            Fault::Split(host, time) => self.split(host, time),
            Fault::Isolate(host, time) => self.isolate(host, time),
            Fault::StopEngine => self.restart_engine(),
            Fault::Partition(host, time) => self.partition(host, &Way::BOTH, time),
            Fault::OneWay(host, way, time) => self.partition(host, &[way], time),
            Fault::Break(host) => self.break_connections(host),
            Fault::Slow(host, by, time) => {
                let until = self.schedule.now() + time;
                self.hosts[host].slow = Some((until, by));
            }
            Fault::LoseManagers(time) => self.lose_leader(time),
            Fault::Deafen(host, time) => {
                self.hosts[host].deaf_until = self.schedule.now() + time;
            }
            Fault::FillDisk(host, pages, time) => self.fill_disk(host, pages, time),
            Fault::FillAll(pages, time) => {
                (0..self.hosts.len()).for_each(|host| self.fill_disk(host, pages, time));
            }
            Fault::DiskError(host) => self.disk_error(host),
            Fault::BitFlip(host) => self.bit_flip(host),
        }
        Ok(())
    }

    /// The blockd is killed.
    fn kill_host(&mut self, host: usize, away: Duration) {
        if !self.hosts[host].is_up() {
            return;
        }
        self.hosts[host].kill();
        self.break_connections(host);
        self.schedule.after(away, Happening::StartHost { host });
    }

    fn kill_agent(&mut self, host: usize, away: Duration) {
        if self.hosts[host].agent.is_up() {
            self.hosts[host].agent.kill();
            self.schedule.after(away, Happening::StartAgent { host });
        }
    }

    /// Its peers are told nothing: their connections just fall silent.
    pub(super) fn cut_power(&mut self, host: usize, away: Duration) {
        let was_up = self.hosts[host].is_up();
        let seed = self.random.random();
        let fate = faults::fate(&mut self.random);
        for engine in self.hosts[host].agent.running() {
            self.ended(engine, false);
        }
        self.kill_agent(host, away);
        self.hosts[host].cut_power(fate, seed);
        self.note_power_losses();
        if was_up {
            self.schedule.after(away, Happening::StartHost { host });
        }
    }

    pub(super) fn some_engine(&mut self) -> Option<EngineId> {
        let at = self.random.random_range(0..self.engines.len().max(1));
        self.engines.keys().nth(at).copied()
    }

    /// People want a volume elsewhere while its engine, unreachable to them, lives on.
    fn take_over(&mut self) {
        let Some(engine) = self.some_engine() else {
            return;
        };
        if self.random.random_ratio(1, 2) {
            // Half of the time the old engine reaches nobody, and is told nothing.
            let time = Duration::from_millis(self.random.random_range(1000..9000));
            self.deafen(engine, time);
            for host in 0..self.hosts.len() {
                self.cut(engine, host, &Way::BOTH, time);
            }
        }
        self.force(engine);
    }

    /// Attaches the volume of an engine to another node by force.
    fn force(&mut self, engine: EngineId) {
        if let Some(volume) = self.engines.get(&engine).map(Engine::volume) {
            self.attach(volume, true);
        }
    }

    /// The old engine lives on and reaches one host, the new one reaches the others.
    fn split(&mut self, host: usize, time: Duration) {
        let Some(old) = self.some_engine() else {
            return;
        };
        let volume = self.engines.get(&old).map(Engine::volume);
        // Only a host that holds what is read and written can serve both.
        let Some(host) = volume.and_then(|volume| self.holder(volume, host)) else {
            return;
        };
        self.deafen(old, time);
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            self.cut(old, other, &Way::BOTH, time);
        }
        self.split = volume.map(|volume| (volume, vec![host], self.schedule.now() + time));
        self.force(old);
    }

    /// The first host from this one on that holds an in-sync replica of a volume.
    fn holder(&self, volume: VolumeId, from: usize) -> Option<usize> {
        let in_sync = self.fleet.in_sync(volume);
        let mut hosts = (from..self.hosts.len()).chain(0..from);
        hosts.find(|host| {
            let slots = &self.hosts[*host].slots;
            in_sync.iter().any(|id| slots.contains_key(id))
        })
    }

    /// The next engine of some volume reaches only a host that has just lost its power.
    fn isolate(&mut self, host: usize, time: Duration) {
        let Some(engine) = self.some_engine() else {
            return;
        };
        let Some(volume) = self.engines.get(&engine).map(Engine::volume) else {
            return;
        };
        let Some(host) = self.holder(volume, host) else {
            return;
        };
        self.ended(engine, false);
        self.cut_power(host, Duration::from_millis(50));
        let others = (0..self.hosts.len()).filter(|other| *other != host);
        self.split = Some((volume, others.collect(), self.schedule.now() + time));
    }

    /// An engine and its agent hear nothing from the managers.
    fn deafen(&mut self, id: EngineId, time: Duration) {
        let until = self.schedule.now() + time;
        if let Some(engine) = self.engines.get_mut(&id) {
            engine.deaf = true;
            self.hosts[engine.start.host].deaf_until = until;
        }
    }

    pub(super) fn cut(&mut self, engine: EngineId, host: usize, ways: &[Way], time: Duration) {
        self.network.cut(engine, host, ways);
        self.schedule.after(time, Happening::Join { engine, host });
    }

    /// Between a host and the engines of another, or of all.
    fn partition(&mut self, host: usize, ways: &[Way], time: Duration) {
        let from = self.random.random_range(0..=self.hosts.len());
        let engines = self.engines.values();
        let cut: Vec<EngineId> = engines
            .filter(|engine| engine.start.host == from || from == self.hosts.len())
            .map(Engine::id)
            .collect();
        for engine in cut {
            self.cut(engine, host, ways, time);
        }
    }

    fn fill_disk(&mut self, host: usize, pages: u64, time: Duration) {
        self.hosts[host].fill_disk(pages);
        self.schedule.after(time, Happening::FreeDisk { host });
    }

    fn break_connections(&mut self, host: usize) {
        for key in self.network.connections(|key| key.host == host) {
            self.close_later(key, LinkFailure::Transport("connection reset".to_owned()));
        }
    }

    /// Whether each volume with an in-sync replica here has another elsewhere, so that nothing is
    /// lost with this host's.
    fn is_expendable(&self, host: usize) -> bool {
        self.hosts[host].slots.keys().all(|id| {
            let volume = self.fleet.replica(*id).map(|(volume, _)| volume.id);
            let in_sync = volume.map_or(Vec::new(), |volume| self.fleet.in_sync(volume));
            !in_sync.contains(id) || in_sync.len() > 1
        })
    }

    fn disk_error(&mut self, host: usize) {
        if self.is_expendable(host) {
            let calls = self.random.random_range(0..20);
            self.hosts[host].fail_call(calls);
        }
    }

    fn bit_flip(&mut self, host: usize) {
        if self.is_expendable(host) {
            let seed = self.random.random();
            let flipped = self.hosts[host].flip_bit(seed);
            self.note(format_args!("flipped: {flipped}"));
        }
    }
}
