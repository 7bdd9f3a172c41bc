//! What a run attacks, and what goes on there meanwhile.

use std::time::Duration;

use super::pair::{PAIR, PAIR_SIZE, Pair};
use super::small_disk::SmallDisk;
use super::traffic::Traffic;
use super::wires::Wires;
use super::{HEALTHY_LIMIT, VOLUME, VOLUME_SIZE};
use crate::cluster::{Cluster, Volume};

/// The node whose disk can be filled.
pub(super) const SMALL: &str = "n3";

/// The cluster with its proxies, its volumes and who uses them.
pub(super) struct Field<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) wires: &'a mut Wires,
    pub(super) small_disk: Option<&'a SmallDisk>,
    pub(super) traffic: Traffic,
    pub(super) pair: Pair,
}

/// Serves every volume, each on another node.
pub(super) fn volumes(cluster: &Cluster) -> anyhow::Result<[Volume; 3]> {
    Ok([
        cluster.serve_on(VOLUME, VOLUME_SIZE, "n1")?,
        cluster.serve_on(PAIR[0], PAIR_SIZE, "n2")?,
        cluster.serve_on(PAIR[1], PAIR_SIZE, "n3")?,
    ])
}

impl Field<'_> {
    /// Every volume, once each has so many replicas in sync.
    pub(super) fn in_sync(&self, count: usize) -> anyhow::Result<Vec<Volume>> {
        let ready = |volume: &Volume| volume.count("in-sync") >= count;
        let what = format!("in sync {count} times");
        let names = [VOLUME, PAIR[0], PAIR[1]].into_iter();
        let wait = |name| self.cluster.wait_volume(name, HEALTHY_LIMIT, &what, ready);
        names.map(wait).collect()
    }

    /// Waits until the managers call every volume healthy.
    pub(super) fn healthy(&self) -> anyhow::Result<()> {
        for name in [VOLUME, PAIR[0], PAIR[1]] {
            let ready = |volume: &Volume| volume.health == "healthy";
            self.cluster
                .wait_volume(name, HEALTHY_LIMIT, "healthy", ready)?;
        }
        Ok(())
    }

    /// The name of the process of a volume's engine.
    pub(super) fn engine(&self, volume: &str) -> anyhow::Result<String> {
        Ok(format!("engine-{}", self.cluster.volume(volume)?.id))
    }

    /// Waits until one engine at most serves this volume, whoever was to end the others.
    pub(super) fn one_engine(&self, volume: &str, limit: Duration) -> anyhow::Result<()> {
        let name = self.engine(volume)?;
        let deadline = std::time::Instant::now() + limit;
        loop {
            let processes = self.cluster.status()?.processes;
            let count = processes.iter().filter(|one| one.name == name).count();
            if count <= 1 {
                return Ok(());
            }
            let late = std::time::Instant::now() >= deadline;
            anyhow::ensure!(!late, "{count} engines of {volume} run after {limit:?}");
        }
    }
}
