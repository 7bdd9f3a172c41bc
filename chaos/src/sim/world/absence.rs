//! A host that stays away for so long that its replicas are replaced elsewhere, and comes back.

use std::collections::BTreeSet;
use std::time::Duration;

use ankole_meta::reconcile::AWAY_MS;
use ankole_meta::state::{Phase, ReplicaMode, Volume};
use ankole_proto::{ReplicaId, VolumeId};
use rand::Rng;
use rand::rngs::StdRng;

use super::super::checker::{Checker, Verdict};
use super::{Happening, World};

/// One run in so many has such a host: it takes longer than others.
const ONE_IN: u32 = 32;
/// How long the managers may take to replace what is away for too long.
const REPLACED_WITHIN: Duration = Duration::from_secs(120);
/// Between two operations of clients while nothing else happens.
pub(super) const TRICKLE: Duration = Duration::from_secs(5);

/// Which host, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Absence {
    pub(super) host: usize,
    pub(super) begin: Duration,
    pub(super) end: Duration,
}

impl Absence {
    pub(super) fn random(random: &mut StdRng, hosts: usize) -> Option<Self> {
        if !random.random_ratio(1, ONE_IN) {
            return None;
        }
        let begin = Duration::from_millis(random.random_range(1_000..11_000));
        let end = begin + Duration::from_millis(AWAY_MS) + REPLACED_WITHIN;
        let host = random.random_range(0..hosts);
        Some(Self { host, begin, end })
    }
}

impl World {
    pub(super) fn is_absent(&self, host: usize) -> bool {
        let now = self.schedule.now();
        self.absence
            .is_some_and(|one| one.host == host && one.begin <= now && now < one.end)
    }

    /// Whether nothing happens but that some host is away.
    pub(super) fn is_sitting_out(&self) -> bool {
        self.healing && self.absence.is_some_and(|one| self.is_absent(one.host))
    }

    pub(super) fn vanish(&mut self, host: usize) {
        self.note(format_args!("host n{} is switched off for long", host + 1));
        self.cut_power(host, Duration::ZERO);
    }

    /// All others are well until the host comes back; what it held is replaced meanwhile.
    pub(super) fn sit_out_absence(&mut self) -> Verdict {
        let Some(absence) = self.absence else {
            return Ok(());
        };
        let Absence { host, end, .. } = absence;
        let margin = Duration::from_secs(1);
        while self.schedule.now() < end - margin {
            self.advance()?;
        }
        if self.is_doomed() || self.has_rotted() {
            self.note(format_args!(
                "the last good copy is gone: nothing to replace it from"
            ));
        } else if let Some(volume) = self.not_replaced(host) {
            let all = self.describe();
            let what = format!("{volume} was not rebuilt without n{}: {all}", host + 1);
            return Err(Checker::Liveness.says()(what));
        }
        self.schedule.at(end, Happening::StartHost { host });
        self.schedule.at(end, Happening::StartAgent { host });
        Ok(())
    }

    /// People want what was attached there elsewhere.
    pub(super) fn fetch_from_absent(&mut self) {
        let Some(absence) = self.absence else { return };
        let node = &self.hosts[absence.host].node;
        let volumes = self.fleet.state.volumes().values();
        let there: Vec<VolumeId> = volumes
            .filter(|volume| volume.phase.node() == Some(node))
            .map(|volume| volume.id)
            .collect();
        for volume in there {
            self.attach(volume, true);
        }
    }

    /// A volume that has not all replicas that it can have on the others, although one of them has
    /// what the volume holds.
    fn not_replaced(&self, absent: usize) -> Option<String> {
        let node = &self.hosts[absent].node;
        let others = self.hosts.len() - 1;
        let slots = self.hosts.iter().flat_map(|host| host.slots.values());
        let faulted = slots.filter(|slot| slot.fault().is_some());
        let faulted: BTreeSet<ReplicaId> = faulted.map(|slot| slot.id).collect();
        let healthy = |volume: &&Volume| {
            let elsewhere = volume
                .in_mode(ReplicaMode::InSync)
                .filter(|(_, replica)| replica.node != *node);
            let usable = elsewhere.filter(|(id, _)| !faulted.contains(id));
            let count = usable.count();
            count == 0 || count >= others.min(volume.replica_count as usize)
        };
        let mut volumes = self.fleet.state.volumes().values();
        volumes
            .find(|volume| volume.phase != Phase::Creating && !healthy(volume))
            .map(|volume| volume.name.clone())
    }
}
