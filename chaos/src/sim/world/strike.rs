//! Faults striking.

use std::time::Duration;

use ankole_engine::mirror::event::LinkFailure;
use rand::Rng;

use super::super::faults::{self, Fault};
use super::super::managers::Mode;
use super::{HOSTS, Happening, World};

impl World {
    pub(super) fn strike(&mut self) -> Result<(), String> {
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

    fn apply(&mut self, fault: Fault) -> Result<(), String> {
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
            Fault::Partition(host, time) => self.partition(host, time),
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
        self.hosts[host].cut_power(seed);
        if was_up {
            self.schedule.after(away, Happening::StartHost { host });
        }
    }

    fn cut_all_power(&mut self, away: Duration) {
        self.kill_engines();
        for host in 0..HOSTS {
            self.cut_power(host, away);
        }
        self.history.power_cut();
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
    fn take_over(&mut self) -> Result<(), String> {
        if self.engines.is_empty() {
            return Ok(());
        }
        if self.random.random_ratio(1, 2)
            && let Some(engine) = self.engines.keys().next_back().copied()
        {
            // Half of the time the old engine reaches nobody, and is told nothing.
            let time = Duration::from_millis(self.random.random_range(1000..9000));
            for host in 0..HOSTS {
                let replica = self.hosts[host].replica;
                self.network.cut(engine, replica);
                self.schedule
                    .after(time, Happening::Join { engine, replica });
            }
        }
        self.start_engine()
    }

    fn partition(&mut self, host: usize, time: Duration) {
        let replica = self.hosts[host].replica;
        if let Some(engine) = self.engines.keys().next_back().copied() {
            self.network.cut(engine, replica);
            self.schedule
                .after(time, Happening::Join { engine, replica });
        }
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
