//! Healing everything, and looking at what is left.

use std::collections::BTreeMap;
use std::time::Duration;

use ankole_meta::state::{Phase, ReplicaMode, Snapshot, SnapshotState, Volume};
use ankole_proto::VolumeId;

use super::super::checker::{self, Checker, Verdict, Views};
use super::super::engine::{Engine, EngineId};
use super::super::fleet::clock;
use super::super::host::Slot;
use super::super::workload::{self, Ask};
use super::{DISK_BYTES, Happening, World};

impl World {
    /// Nothing goes wrong any more; what is down comes back.
    pub(super) fn heal(&mut self) {
        self.note(format_args!("HEAL"));
        self.healing = true;
        let now = self.schedule.now();
        self.healed_at_ms = clock(now).wall_ms;
        self.fleet.leaderless_until = self.fleet.leaderless_until.min(now);
        self.network.join_all();
        for host in 0..self.hosts.len() {
            self.hosts[host].slow = None;
            self.hosts[host].deaf_until = now;
            self.hosts[host].disk.set_capacity(DISK_BYTES);
            self.hosts[host].disk.mend();
            self.schedule
                .after(Duration::ZERO, Happening::StartHost { host });
            self.schedule
                .after(Duration::ZERO, Happening::StartAgent { host });
        }
        for engine in self.engines.values_mut() {
            engine.deaf = false;
        }
        for key in self.network.connections(|_| true) {
            let failure = ankole_engine::mirror::event::LinkFailure::Transport("reset".to_owned());
            self.close_later(key, failure);
        }
    }

    /// Whether everything is as wanted; otherwise what is not.
    pub(super) fn unsettled(&self) -> Option<String> {
        let state = &self.fleet.state;
        if state.volumes().len() != self.models.len() || !state.doomed().is_empty() {
            return Some("replicas are to be deleted".to_owned());
        }
        if state.snapshots().values().any(|one| self.is_changing(one)) {
            return Some("snapshots come or go".to_owned());
        }
        let stored = self
            .hosts
            .iter()
            .map(|host| host.slots.len())
            .sum::<usize>();
        let on_record = state.volumes().values().map(|one| one.replicas.len());
        if stored != on_record.sum::<usize>() {
            return Some("stored is not what is on record".to_owned());
        }
        state
            .volumes()
            .values()
            .find_map(|volume| self.unsettled_volume(volume))
    }

    /// Whether a snapshot is yet to be taken or merged away. A deleted one whose layer is below
    /// several others stays hidden until one of them is left.
    fn is_changing(&self, snapshot: &Snapshot) -> bool {
        match snapshot.state {
            SnapshotState::Ready => false,
            SnapshotState::Creating => true,
            SnapshotState::Deleting => snapshot.layer.is_none_or(|layer| {
                let volume = self.fleet.volume(snapshot.volume);
                volume.is_none_or(|volume| volume.children(layer).count() <= 1)
            }),
        }
    }

    fn unsettled_volume(&self, volume: &Volume) -> Option<String> {
        let name = &volume.name;
        let say = |what: &str| Some(format!("{name} {what}"));
        if !matches!(volume.phase, Phase::Attached(_)) || !volume.tasks.is_empty() {
            return say("is not attached, or has tasks");
        }
        let in_sync = volume.in_mode(ReplicaMode::InSync).count();
        if in_sync != volume.replica_count as usize || in_sync != volume.replicas.len() {
            return say("has not the replicas that are wanted");
        }
        let engines: Vec<&Engine> = self
            .engines
            .values()
            .filter(|engine| engine.volume() == volume.id)
            .collect();
        let [engine] = engines.as_slice() else {
            return say("has not one engine");
        };
        if !engine.serving || !engine.waiting.is_empty() || engine.start.port.is_none() {
            return say("is not served, or has operations that wait");
        }
        let slots = self.slots_of(volume.id);
        let settled = slots.iter().all(|slot| {
            let ours = slot.tenant().is_some_and(|key| key.engine == engine.id());
            // An engine may not have noticed yet that a host was away.
            slot.is_up() && slot.fault().is_none() && slot.is_idle() && ours
        });
        let scrubbed = |slot: &&Slot| slot.is_scrubbed(volume.scrub.request);
        if volume.scrub.asked_at_ms < self.healed_at_ms || !slots.iter().all(scrubbed) {
            return say("is not scrubbed");
        }
        if slots.iter().any(|slot| slot.damaged_blocks() > 0) {
            return say("has damaged blocks");
        }
        if volume.wanted_comparison().is_some() {
            return say("has replicas that are not compared");
        }
        if !settled || slots.len() != in_sync {
            return say("has a replica that is not settled");
        }
        let alike = slots
            .windows(2)
            .all(|pair| matches!(pair, [one, other] if one.layers() == other.layers()));
        if alike {
            None
        } else {
            say("has replicas with different layers")
        }
    }

    fn slots_of(&self, volume: VolumeId) -> Vec<&Slot> {
        let slots = self.hosts.iter().flat_map(|host| host.slots.values());
        slots.filter(|slot| slot.volume == volume).collect()
    }

    /// Whether some volume has lost its last good copy, to the cursed disk only: every in-sync
    /// replica is broken.
    pub(super) fn is_doomed(&self) -> bool {
        let mut volumes = self.fleet.state.volumes().keys();
        volumes.any(|volume| {
            let in_sync = self.fleet.in_sync(*volume);
            let slots = self.slots_of(*volume);
            let mut ours = slots.iter().filter(|slot| in_sync.contains(&slot.id));
            !in_sync.is_empty() && ours.all(|slot| slot.fault().is_some())
        })
    }

    /// Whether the only in-sync replica of some volume is one whose bits flip.
    pub(super) fn has_rotted(&self) -> bool {
        let cursed = &self.hosts[self.cursed].slots;
        let mut volumes = self.fleet.state.volumes().keys();
        volumes.any(|volume| {
            let in_sync = self.fleet.in_sync(*volume);
            !in_sync.is_empty() && in_sync.iter().all(|id| cursed.contains_key(id))
        })
    }

    /// Whether its volume has not been deleted: an engine that is cut off learns of that late, and
    /// holds what it was asked meanwhile.
    fn has_volume(&self, engine: &Engine) -> bool {
        self.fleet.state.volumes().contains_key(&engine.volume())
    }

    /// Reads everything back.
    pub(super) fn read_back(&mut self) -> Verdict {
        let with_volume = self
            .engines
            .values()
            .filter(|engine| self.has_volume(engine));
        let asked: Vec<EngineId> = with_volume.map(Engine::id).collect();
        for engine in asked {
            let size = self.engines.get(&engine).and_then(Engine::size);
            for extent in size.into_iter().flat_map(workload::written) {
                self.submit(engine, Ask::Read(extent))?;
            }
            self.submit(engine, Ask::Flush)?;
        }
        let deadline = self.schedule.now() + Duration::from_secs(10);
        while self
            .engines
            .values()
            .any(|engine| !engine.waiting.is_empty() && self.has_volume(engine))
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
        let mut shown = BTreeMap::new();
        for volume in self.fleet.state.volumes().values() {
            let Some(model) = self.models.get(&volume.id) else {
                continue;
            };
            let mut slots: Vec<&mut Slot> = self
                .hosts
                .iter_mut()
                .flat_map(|host| host.slots.values_mut())
                .filter(|slot| slot.volume == volume.id)
                .collect();
            checker::trees::check(&mut slots).map_err(Checker::Trees.says())?;
            let mut replicas = Vec::new();
            for slot in &mut slots {
                let views = Views::of(slot, volume)
                    .map_err(|error| format!("replica {}: {error}", slot.id))
                    .map_err(Checker::Convergence.says())?;
                replicas.push(views);
            }
            if let Err(what) = checker::convergence::check(&replicas) {
                let copies: Vec<String> = workload::written(volume.size)
                    .flat_map(|extent| {
                        let each = slots.iter_mut().map(move |slot| slot.copies("", extent));
                        each.flatten().collect::<Vec<_>>()
                    })
                    .collect();
                for line in copies {
                    self.trace.line(self.schedule.now(), format_args!("{line}"));
                }
                return Err(Checker::Convergence.says()(what));
            }
            for views in &replicas {
                checker::snapshots::check(views, &self.fleet.state, model, volume)
                    .map_err(Checker::Snapshots.says())?;
            }
            if let Some(views) = replicas.pop() {
                shown.insert(volume.id, views);
            }
        }
        let whole = self.groups.iter().filter(|group| {
            let mut members = group.iter();
            members.all(|(_, one)| self.fleet.state.snapshots().contains_key(one))
        });
        self.summary.groups += whole.count() as u64;
        checker::cut::check(&shown, &self.fleet.state, &self.models, &self.groups)
            .map_err(Checker::Cut.says())
    }
}
