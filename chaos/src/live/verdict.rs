//! What must hold at the end, counted.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use super::fault::NODES;
use super::pair::PAIR;
use super::{VOLUME, groups, pair};
use crate::cluster::{Cluster, Volume, binary, capture};
use crate::demo::digest;
use crate::load::{self, Durable};

/// Checks that passed and failed.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    passed: usize,
    failed: usize,
}

impl Verdict {
    /// Counts one check and tells of it.
    pub(super) fn note<E: Display>(&mut self, what: &str, result: Result<(), E>) {
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("passed: {what}");
            }
            Err(error) => {
                self.failed += 1;
                println!("FAILED: {what}: {error:#}");
            }
        }
    }

    pub(super) fn passed(&self) -> usize {
        self.passed
    }

    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// Every acknowledged write is there: the host lived through all of it.
    pub(super) fn contents(&mut self, url: &str, shadow: &Path) {
        let found = load::check(url, shadow, Durable::Acknowledged).and_then(|findings| {
            ensure!(findings.mismatches == 0, "{findings:?}");
            ensure!(findings.blocks > 0, "nothing was ever written");
            Ok(())
        });
        self.note("every acknowledged write is there", found);
    }

    /// With everything stopped: each store is sound, the replicas of every volume hold the same, in
    /// the volume and in every snapshot, and each group of snapshots is one moment.
    pub(super) fn replicas(&mut self, cluster: &Cluster, folder: &Path) -> anyhow::Result<()> {
        let mut volumes = Vec::new();
        for name in [VOLUME, PAIR[0], PAIR[1]] {
            let mut layers: Vec<Option<String>> = vec![None];
            let snapshots = cluster.snapshots(name)?;
            let ready = snapshots.iter().filter(|one| one.state == "ready");
            layers.extend(ready.map(|one| Some(one.layer.clone())));
            volumes.push((name, cluster.volume(name)?, layers));
            cluster.ankole(&["volume", "detach", name])?;
        }
        let groups = groups::ready(cluster)?;
        cluster.down()?;
        let running = cluster.status()?.processes;
        let stray: Vec<_> = running.iter().filter(|one| one.pid.is_some()).collect();
        let none = ensure_none(&stray);
        self.note("no process is left", none);
        for node in NODES {
            let store = cluster.store(node).display().to_string();
            let verified = binary("ankole-blockd")
                .and_then(|blockd| capture(&blockd, &["verify", &store]).map(drop));
            self.note(&format!("the store of {node} is sound"), verified);
        }
        for (name, volume, layers) in &volumes {
            for layer in layers {
                let same = alike(cluster, folder, volume, layer.as_deref());
                let layer = layer.as_deref().unwrap_or("the head");
                let what = format!("the replicas of {name} hold the same in {layer}");
                self.note(&what, same);
            }
        }
        let [_, (_, first, _), (_, second, _)] = volumes.as_slice() else {
            unreachable!("three volumes");
        };
        for (name, [first_layer, second_layer]) in &groups {
            let cut = export(cluster, folder, first, 0, Some(first_layer)).and_then(|first| {
                let second = export(cluster, folder, second, 1, Some(second_layer))?;
                let found = pair::is_cut([&first, &second]);
                std::fs::remove_file(&first)?;
                std::fs::remove_file(&second)?;
                found
            });
            self.note(&format!("the group {name} is one moment"), cut.map(drop));
        }
        Ok(())
    }
}

fn ensure_none(stray: &[&crate::cluster::Process]) -> anyhow::Result<()> {
    ensure!(stray.is_empty(), "{stray:?}");
    Ok(())
}

fn alike(
    cluster: &Cluster,
    folder: &Path,
    volume: &Volume,
    layer: Option<&str>,
) -> anyhow::Result<()> {
    let mut digests = Vec::new();
    for (index, replica) in volume.replicas.iter().enumerate() {
        let raw = export(cluster, folder, volume, index, layer)?;
        digests.push((replica.node.clone(), digest::of_file(&raw)?));
        std::fs::remove_file(&raw)?;
    }
    let same = digests.windows(2).all(|pair| pair[0].1 == pair[1].1);
    ensure!(same && digests.len() == 3, "{digests:?}");
    Ok(())
}

/// The image of a replica, by its index, as of this layer.
fn export(
    cluster: &Cluster,
    folder: &Path,
    volume: &Volume,
    index: usize,
    layer: Option<&str>,
) -> anyhow::Result<PathBuf> {
    let replica = volume.replicas.get(index).context("no such replica")?;
    let store = cluster.store(&replica.node).join("ankole/replicas");
    let directory = store.join(&replica.id).display().to_string();
    let raw = folder.join(format!("{}-{index}.raw", volume.id));
    let shown = raw.display().to_string();
    let mut arguments = vec!["export", &directory, &shown];
    if let Some(layer) = layer {
        arguments.extend(["--layer", layer]);
    }
    capture(&binary("ankole-blockd")?, &arguments)?;
    Ok(raw)
}
