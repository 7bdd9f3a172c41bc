//! Faults striking.

use std::time::Duration;

use ankole_engine::mirror::event::{Event, LinkFailure};
use rand::Rng;

use super::super::checker::Verdict;
use super::super::engine::EngineId;
use super::super::faults::{self, Fault};
use super::super::managers::Mode;
use super::super::network::Way;
use super::{HOSTS, Happening, World};

impl World {
    pub(super) fn strike(&mut self) -> Verdict {
        if self.healing {
            return Ok(());
        }
        let pause = faults::pause(&mut self.random);
        self.schedule.after(pause, Happening::Strike);
        let fault = faults::next(&mut self.random, HOSTS, self.cursed);
        self.note(format_args!("FAULT {fault:?}"));
        self.summary.faults += 1;
        self.apply(fault)
    }

    fn apply(&mut self, fault: Fault) -> Verdict {
        match fault {
            Fault::KillHost(host, away) => self.kill_host(host, away),
            Fault::CutPower(host, away) => self.cut_power(host, away),
            Fault::CutAllPower(away) => self.cut_all_power(away),
            Fault::KillAll(away) => {
                for host in 0..HOSTS {
                    self.kill_host(host, away);
                }
                self.kill_engines();
            }
            Fault::KillEngine => self.kill_newest(),
            Fault::Takeover => return self.take_over(),
            Fault::Split(host, time) => return self.split(host, time),
            Fault::StopEngine => {
                if let Some(engine) = self.engines.keys().next_back().copied() {
                    return self.step(engine, Event::Stop);
                }
            }
            Fault::Partition(host, time) => self.partition(host, &Way::BOTH, time),
            Fault::OneWay(host, way, time) => self.partition(host, &[way], time),
            Fault::Break(host) => self.break_connections(host),
            Fault::Slow(host, by, time) => {
                let until = self.schedule.now() + time;
                self.hosts[host].slow = Some((until, by));
            }
            Fault::LoseManagers(time) => {
                let until = self.schedule.now() + time;
                self.managers.unreachable_until = until;
            }
            Fault::Snapshot => {
                let now = self.schedule.now();
                if now >= self.managers.unreachable_until && self.managers.ask_snapshot(now) {
                    self.tell_engines();
                }
            }
            Fault::Revert(number) => self.revert(number),
            Fault::DeleteSnapshot(number) => {
                let now = self.schedule.now();
                if now >= self.managers.unreachable_until
                    && let Some(layer) = self.managers.delete_snapshot(number)
                {
                    self.note(format_args!("layer {layer} is to go"));
                    self.summary.deletions += 1;
                }
            }
            Fault::FillDisk(host, pages, time) => self.fill_disk(host, pages, time),
            Fault::FillAll(pages, time) => {
                (0..HOSTS).for_each(|host| self.fill_disk(host, pages, time));
            }
            Fault::DiskError(host) => self.disk_error(host),
            Fault::BitFlip(host) => self.bit_flip(host),
        }
        Ok(())
    }

    fn kill_host(&mut self, host: usize, away: Duration) {
        if !self.hosts[host].is_up() {
            return;
        }
        self.hosts[host].kill();
        self.break_connections(host);
        self.schedule.after(away, Happening::StartHost { host });
    }

    /// Its peers are told nothing: their connections just fall silent.
    fn cut_power(&mut self, host: usize, away: Duration) {
        let was_up = self.hosts[host].is_up();
        let seed = self.random.random();
        let fate = faults::fate(&mut self.random);
        self.hosts[host].cut_power(fate, seed);
        self.note_power_loss();
        if was_up {
            self.schedule.after(away, Happening::StartHost { host });
        }
    }

    /// When no in-sync replica is left that has not lost its power, what was not flushed may be
    /// gone.
    pub(super) fn note_power_loss(&mut self) {
        let hosts = &self.hosts;
        let intact = |id| hosts.iter().any(|host| host.replica == id && host.intact);
        if !self.managers.with(Mode::InSync).any(intact) {
            self.history.power_cut();
        }
    }

    fn cut_all_power(&mut self, away: Duration) {
        self.kill_engines();
        for host in 0..HOSTS {
            self.cut_power(host, away);
        }
    }

    pub(super) fn kill_engines(&mut self) {
        for engine in self.engines.keys().copied().collect::<Vec<_>>() {
            self.ended(engine);
        }
    }

    fn kill_newest(&mut self) {
        if let Some(engine) = self.engines.keys().next_back().copied() {
            self.ended(engine);
        }
    }

    /// The managers want the volume elsewhere while its engine, unreachable to them, lives on.
    fn take_over(&mut self) -> Verdict {
        let Some(engine) = self.engines.keys().next_back().copied() else {
            return Ok(());
        };
        if self.random.random_ratio(1, 2) {
            // Half of the time the old engine reaches nobody, and is told nothing.
            let time = Duration::from_millis(self.random.random_range(1000..9000));
            self.deafen(engine);
            for host in 0..HOSTS {
                self.cut(engine, host, &Way::BOTH, time);
            }
        }
        self.start_engine()
    }

    /// The old engine lives on and reaches one host, the new one reaches the others.
    fn split(&mut self, host: usize, time: Duration) -> Verdict {
        let Some(old) = self.engines.keys().next_back().copied() else {
            return Ok(());
        };
        self.deafen(old);
        for other in (0..HOSTS).filter(|other| *other != host) {
            self.cut(old, other, &Way::BOTH, time);
        }
        let next = EngineId(self.next_engine);
        self.cut(next, host, &Way::BOTH, time);
        self.start_engine()
    }

    fn deafen(&mut self, engine: EngineId) {
        if let Some(engine) = self.engines.get_mut(&engine) {
            engine.deaf = true;
        }
    }

    fn cut(&mut self, engine: EngineId, host: usize, ways: &[Way], time: Duration) {
        let replica = self.hosts[host].replica;
        self.network.cut(engine, replica, ways);
        self.schedule
            .after(time, Happening::Join { engine, replica });
    }

    fn partition(&mut self, host: usize, ways: &[Way], time: Duration) {
        if let Some(engine) = self.engines.keys().next_back().copied() {
            self.cut(engine, host, ways, time);
        }
    }

    fn revert(&mut self, number: usize) {
        let now = self.schedule.now();
        if now < self.managers.unreachable_until {
            return;
        }
        if let Some((taken, done)) = self.managers.ask_revert(number) {
            let volume = self.managers.size.extent();
            let revert = self.history.begin_revert(volume, taken, done, now);
            self.revert = Some(revert);
            self.tell_engines();
        }
    }

    fn fill_disk(&mut self, host: usize, pages: u64, time: Duration) {
        self.hosts[host].fill_disk(pages);
        self.schedule.after(time, Happening::FreeDisk { host });
    }

    fn break_connections(&mut self, host: usize) {
        let replica = self.hosts[host].replica;
        for key in self.network.connections(|key| key.replica == replica) {
            self.close_later(key, LinkFailure::Transport("connection reset".to_owned()));
        }
    }

    /// Whether another replica than this host's is in sync, so that nothing is lost with it.
    fn is_expendable(&self, host: usize) -> bool {
        let replica = self.hosts[host].replica;
        self.managers
            .with(Mode::InSync)
            .any(|other| other != replica)
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
