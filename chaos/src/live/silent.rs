//! A block that changes together with its checksum: only the other replicas can tell.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use ankole_proto::BLOCK_BYTES;
use anyhow::{Context, bail, ensure};

use super::VOLUME;
use super::pair::PAIR;
use crate::cluster::{Cluster, Comparison, Volume};

/// How long a comparison may take: a few GiB at 32 MiB/s.
const COMPARISON_LIMIT: Duration = Duration::from_secs(180);

/// What no checksum matches by chance.
const SPOILT: [u8; 4096] = [0x5a; 4096];

/// The replicas of every volume are found to read the same.
pub(super) fn are_alike(cluster: &Cluster) -> anyhow::Result<()> {
    let names = [VOLUME, PAIR[0], PAIR[1]];
    let begun = names.map(|name| begin(cluster, name));
    for (name, begun) in names.into_iter().zip(begun) {
        let found = end(cluster, name, begun?)?;
        ensure!(found.differing_chunks == 0, "{name}: {found:?}");
        ensure!(found.skipped_chunks == 0, "{name}: {found:?}");
    }
    Ok(())
}

/// A block of a snapshot changes on one replica, with its checksum. It is found and made equal.
pub(super) fn is_found(cluster: &Cluster) -> anyhow::Result<()> {
    let volume = cluster.volume(VOLUME)?;
    let replica = volume.replicas.last().context("no replica")?;
    let directory = cluster.store(&replica.node).join("ankole/replicas");
    let layers = directory.join(&replica.id).join("layers");
    let mut spoilt = false;
    for snapshot in cluster.snapshots(VOLUME)? {
        let ready = snapshot.state == "ready";
        spoilt = spoilt || (ready && spoil(&layers, &snapshot.layer)?);
    }
    ensure!(spoilt, "no snapshot holds a block");
    let begun = begin(cluster, VOLUME)?;
    let found = end(cluster, VOLUME, begun)?;
    ensure!(found.differing_chunks == 1, "{found:?}");
    ensure!(found.undecided_chunks == 0, "{found:?}");
    let whole = |volume: &Volume| volume.count("in-sync") == 3 && volume.health == "healthy";
    cluster.wait_volume(VOLUME, COMPARISON_LIMIT, "whole again", whole)?;
    Ok(())
}

/// When the last comparison ended.
fn ended_at_ms(volume: &Volume) -> u64 {
    volume.comparison.map_or(0, |one| one.finished_at_ms)
}

/// Has a volume's replicas compared; tells when they were before.
fn begin(cluster: &Cluster, name: &str) -> anyhow::Result<u64> {
    let before = ended_at_ms(&cluster.volume(name)?);
    cluster.ankole(&["volume", "scrub", name])?;
    Ok(before)
}

fn end(cluster: &Cluster, name: &str, before: u64) -> anyhow::Result<Comparison> {
    let compared = |volume: &Volume| ended_at_ms(volume) > before;
    let volume = cluster.wait_volume(name, COMPARISON_LIMIT, "compared", compared)?;
    volume.comparison.context("nothing was compared")
}

/// Changes the first block that a layer holds; whether it holds one.
fn spoil(layers: &Path, layer: &str) -> anyhow::Result<bool> {
    let open = |part: &str| {
        let path = layers.join(format!("{layer}.{part}"));
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path);
        file.with_context(|| format!("cannot open {}", path.display()))
    };
    let (image, sums) = (open("img")?, open("sum")?);
    let first = match rustix::fs::seek(&image, rustix::fs::SeekFrom::Data(0)) {
        Ok(first) => first / BLOCK_BYTES,
        Err(rustix::io::Errno::NXIO) => return Ok(false),
        Err(error) => bail!("cannot look for data: {error}"),
    };
    image.write_all_at(&SPOILT, first * BLOCK_BYTES)?;
    let sum = ankole_proto::crc32c(&SPOILT).to_le_bytes();
    sums.write_all_at(&sum, first * 4)?;
    Ok(true)
}
