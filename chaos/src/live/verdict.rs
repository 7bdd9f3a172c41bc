//! What must hold at the end, counted.

use std::fmt::Display;
use std::path::Path;

use anyhow::ensure;

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

    /// With everything stopped: each store is sound, and the replicas hold the same, in the volume
    /// and in every snapshot.
    pub(super) fn replicas(
        &mut self,
        cluster: &Cluster,
        folder: &Path,
        volume: &Volume,
    ) -> anyhow::Result<()> {
        let mut layers: Vec<Option<String>> = vec![None];
        let snapshots = cluster.snapshots("live")?;
        let ready = snapshots.iter().filter(|one| one.state == "ready");
        layers.extend(ready.map(|one| Some(one.layer.clone())));
        cluster.ankole(&["volume", "detach", "live"])?;
        cluster.down()?;
        let running = cluster.status()?.processes;
        let stray: Vec<_> = running.iter().filter(|one| one.pid.is_some()).collect();
        let none = ensure_none(&stray);
        self.note("no process is left", none);
        for replica in &volume.replicas {
            let store = cluster.store(&replica.node).display().to_string();
            let verified = binary("ankole-blockd")
                .and_then(|blockd| capture(&blockd, &["verify", &store]).map(drop));
            self.note(&format!("the store of {} is sound", replica.node), verified);
        }
        for layer in layers {
            let same = alike(cluster, folder, volume, layer.as_deref());
            let name = layer.map_or("the volume".to_owned(), |layer| format!("layer {layer}"));
            self.note(&format!("the replicas hold the same for {name}"), same);
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
    let blockd = binary("ankole-blockd")?;
    let mut digests = Vec::new();
    for replica in &volume.replicas {
        let store = cluster.store(&replica.node).join("ankole/replicas");
        let directory = store.join(&replica.id).display().to_string();
        let raw = folder.join(format!("{}.raw", replica.node));
        let shown = raw.display().to_string();
        let mut arguments = vec!["export", &directory, &shown];
        if let Some(layer) = layer {
            arguments.extend(["--layer", layer]);
        }
        capture(&blockd, &arguments)?;
        digests.push((replica.node.clone(), digest::of_file(&raw)?));
        std::fs::remove_file(&raw)?;
    }
    let same = digests.windows(2).all(|pair| pair[0].1 == pair[1].1);
    ensure!(same && digests.len() == 3, "{digests:?}");
    Ok(())
}
