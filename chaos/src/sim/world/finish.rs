//! Healing everything, and looking at what is left.

use std::time::Duration;

use super::super::checker::{self, Checker, Verdict};
use super::super::managers::Mode;
use super::super::workload::{self, Ask};
use super::{DISK_BYTES, HOSTS, Happening, World};

impl World {
    /// Nothing goes wrong any more; what is down comes back.
    pub(super) fn heal(&mut self) {
        self.note(format_args!("HEAL"));
        self.healing = true;
        let now = self.schedule.now();
        self.managers.unreachable_until = now;
        self.network.join_all();
        for host in 0..HOSTS {
            self.hosts[host].slow = None;
            self.hosts[host].disk.set_capacity(DISK_BYTES);
            self.hosts[host].disk.mend();
            self.schedule
                .after(Duration::ZERO, Happening::StartHost { host });
        }
        for engine in self.engines.values_mut() {
            engine.deaf = false;
        }
        // Agents end engines that are not wanted any more.
        let newest = self.engines.keys().next_back().copied();
        for engine in self.engines.keys().copied().collect::<Vec<_>>() {
            if Some(engine) != newest {
                self.ended(engine);
            }
        }
        for key in self.network.connections(|_| true) {
            let failure = ankole_engine::mirror::event::LinkFailure::Transport("reset".to_owned());
            self.close_later(key, failure);
        }
        self.tell_engines();
    }

    /// Whether the volume is healthy: one engine serves, every replica is in sync, nothing waits.
    pub(super) fn is_converged(&self) -> bool {
        let mut engines = self.engines.values();
        let served = matches!((engines.next(), engines.next()), (Some(engine), None)
            if engine.serving && engine.waiting.is_empty());
        served
            && self.managers.with(Mode::InSync).count() == HOSTS
            && !self.managers.has_task()
            && self
                .hosts
                .iter()
                .all(|host| host.is_up() && host.fault().is_none() && host.is_idle())
            // An engine may not have noticed yet that a host was away.
            && self.hosts.iter().all(|host| {
                let engine = host.tenant().map(|tenant| tenant.engine);
                engine.is_some_and(|engine| self.engines.contains_key(&engine))
            })
            && self.hosts.windows(2).all(|pair| match pair {
                [one, other] => one.layers() == other.layers(),
                _ => true,
            })
    }

    /// Whether every replica in sync is broken: only a disk error of the cursed host, as the last
    /// in-sync one, leads here.
    pub(super) fn is_doomed(&self) -> bool {
        self.managers.with(Mode::InSync).all(|replica| {
            let host = self.hosts.iter().find(|host| host.replica == replica);
            host.is_some_and(|host| host.fault().is_some())
        })
    }

    /// Whether the only in-sync replica is the one whose bits flip.
    pub(super) fn has_rotted(&self) -> bool {
        let cursed = self.hosts[self.cursed].replica;
        self.managers.with(Mode::InSync).all(|id| id == cursed)
    }

    /// Reads everything back.
    pub(super) fn read_back(&mut self) -> Verdict {
        let Some(engine) = self.engines.keys().next_back().copied() else {
            return Err(Checker::Liveness.says()("no engine is left".to_owned()));
        };
        for extent in workload::written() {
            self.submit(engine, Ask::Read(extent))?;
        }
        self.submit(engine, Ask::Flush)?;
        let deadline = self.schedule.now() + Duration::from_secs(10);
        while self
            .engines
            .get(&engine)
            .is_some_and(|engine| !engine.waiting.is_empty())
        {
            if self.schedule.now() > deadline {
                let what = format!("the last reads are not answered: {}", self.describe());
                return Err(Checker::Liveness.says()(what));
            }
            self.advance()?;
        }
        Ok(())
    }

    /// Compares the replicas with each other and with the history.
    pub(super) fn finish(&mut self) -> Verdict {
        let (hosts, managers) = (&mut self.hosts, &self.managers);
        checker::trees::check(hosts).map_err(Checker::Trees.says())?;
        checker::convergence::check(hosts, managers).map_err(Checker::Convergence.says())?;
        for host in hosts {
            checker::snapshots::check(host, managers, &self.history)
                .map_err(Checker::Snapshots.says())?;
        }
        Ok(())
    }
}
