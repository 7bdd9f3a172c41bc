//! The steps, in order.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::{Account, digest, image};
use crate::cluster::{Cluster, binary, capture, run};

const VOLUME: &str = "demo";
const VOLUME_BYTES: u64 = 1 << 30;
/// The blockd that is killed: not the one beside the engine, whose loss is the easier case.
const VICTIM: &str = "n2";
/// `qemu-img convert -r`: slow enough that the kills fall in the middle of the write.
const WRITE_RATE: &str = "80M";
const WRITE_LIMIT: Duration = Duration::from_secs(120);
const REBUILD_LIMIT: Duration = Duration::from_secs(120);
const OVERWRITE_AT: &str = "64M";
const OVERWRITE_LENGTH: &str = "64M";

pub(super) fn show(cluster: &Cluster, folder: &Path, account: &Account) -> anyhow::Result<()> {
    let volume = cluster.serve(VOLUME, "1GiB")?;
    let in_sync = volume.count("in-sync");
    ensure!(
        in_sync == 3,
        "the volume has {in_sync} replicas in sync, not 3"
    );
    account.say(&format!(
        "volume {VOLUME}: 1 GiB on 3 replicas, served at {}",
        volume.url
    ));

    let image = image::make(folder, VOLUME_BYTES)?;
    let expected = digest::of_file(&image.path)?;
    account.say(&format!(
        "made an ext4 image of {} files, {} MiB, SHA-256 {}",
        image.files,
        image.payload_bytes >> 20,
        short(&expected)
    ));

    write_while_killing(cluster, &image.path, &volume.url, account)?;
    compare(
        &volume.url,
        &expected,
        "read back by another client",
        account,
    )?;
    let degraded = cluster.volume(VOLUME)?;
    account.say(&format!(
        "the volume is {}: {}",
        degraded.health, degraded.message
    ));

    let snapshot = cluster.snapshot(VOLUME, "before")?;
    account.say(&format!(
        "snapshot `before`: layer {} is {}",
        snapshot.layer, snapshot.state
    ));
    overwrite(&volume.url)?;
    let changed = digest::of_unit(&volume.url)?;
    ensure!(changed != expected, "the overwrite changed nothing");
    account.say(&format!(
        "overwrote {OVERWRITE_LENGTH} and read it: SHA-256 {}",
        short(&changed)
    ));
    cluster.ankole(&["snapshot", "revert", VOLUME, "before"])?;
    compare(&volume.url, &expected, "reverted to the snapshot", account)?;

    cluster.start_missing()?;
    account.say("started the killed processes again");
    let healthy = cluster.wait_volume(VOLUME, REBUILD_LIMIT, "healthy", |volume| {
        volume.health == "healthy" && volume.count("in-sync") == 3
    })?;
    account.say(&format!(
        "rebuilt: {} replicas in sync",
        healthy.count("in-sync")
    ));
    compare(&volume.url, &expected, "after the rebuild", account)?;

    cluster.ankole(&["volume", "detach", VOLUME])?;
    cluster.down()?;
    verify_stores(cluster, folder, &healthy, &expected, account)
}

fn short(digest: &str) -> &str {
    digest.get(..16).unwrap_or(digest)
}

fn compare(url: &str, expected: &str, what: &str, account: &Account) -> anyhow::Result<()> {
    let start = Instant::now();
    let found = digest::of_unit(url)?;
    ensure!(
        found == expected,
        "{what}: SHA-256 is {found}, not {expected}"
    );
    let rate = VOLUME_BYTES as f64 / f64::from(1 << 20) / start.elapsed().as_secs_f64();
    account.say(&format!("{what}: SHA-256 matches ({rate:.0} MiB/s)"));
    Ok(())
}

/// Writes the image through iSCSI and kills one blockd and the leading manager meanwhile.
fn write_while_killing(
    cluster: &Cluster,
    image: &Path,
    url: &str,
    account: &Account,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut writer = Command::new("qemu-img")
        .args([
            "convert",
            "-p",
            "-n",
            "-t",
            "writeback",
            "-r",
            WRITE_RATE,
            "-f",
            "raw",
            "-O",
            "raw",
        ])
        .arg(image)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run qemu-img (packages qemu-utils, qemu-block-extra)")?;
    let mut progress = writer.stdout.take().context("no output")?;
    wait_for_progress(&mut progress, 25.0)?;
    cluster.kill(&format!("blockd-{VICTIM}"))?;
    account.say(&format!(
        "qemu-img writes; killed blockd-{VICTIM} with SIGKILL"
    ));
    wait_for_progress(&mut progress, 50.0)?;
    let leader = cluster.leader()?;
    cluster.kill(&leader)?;
    ensure!(
        writer.try_wait()?.is_none(),
        "the write was over before the kills"
    );
    account.say(&format!(
        "killed the leading manager, {leader}, with SIGKILL"
    ));
    finish(writer, progress)?;
    let seconds = start.elapsed().as_secs_f64();
    account.say(&format!(
        "qemu-img finished without an error after {seconds:.1} s"
    ));
    Ok(())
}

/// Reads `(12.34/100%)` from qemu-img until so many percent are done.
fn wait_for_progress(output: &mut impl Read, percent: f64) -> anyhow::Result<()> {
    let mut text = Vec::new();
    let mut byte = [0];
    loop {
        ensure!(
            output.read(&mut byte)? == 1,
            "qemu-img ended before {percent} % were written"
        );
        match byte[0] {
            b'(' => text.clear(),
            b'/' => {
                let done = String::from_utf8_lossy(&text).trim().parse::<f64>();
                if done.is_ok_and(|done| done >= percent) {
                    return Ok(());
                }
            }
            other => text.push(other),
        }
    }
}

fn finish(mut writer: Child, mut progress: impl Read + Send + 'static) -> anyhow::Result<()> {
    let reader = std::thread::spawn(move || {
        let mut rest = Vec::new();
        progress.read_to_end(&mut rest)
    });
    let deadline = Instant::now() + WRITE_LIMIT;
    let status = loop {
        if let Some(status) = writer.try_wait()? {
            break status;
        }
        if Instant::now() >= deadline {
            writer.kill()?;
            writer.wait()?;
            bail!("qemu-img did not finish within {} s", WRITE_LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let mut said = String::new();
    if let Some(mut errors) = writer.stderr.take() {
        errors.read_to_string(&mut said)?;
    }
    drop(reader.join());
    ensure!(
        status.success(),
        "qemu-img failed ({status}): {}",
        said.trim()
    );
    Ok(())
}

fn overwrite(url: &str) -> anyhow::Result<()> {
    let write = format!("write -P 0xa7 {OVERWRITE_AT} {OVERWRITE_LENGTH}");
    let read = format!("read -P 0xa7 {OVERWRITE_AT} {OVERWRITE_LENGTH}");
    let said = run(
        "qemu-io",
        &["-f", "raw", "-c", &write, "-c", "flush", "-c", &read, url],
    )?;
    ensure!(
        !said.contains("Pattern verification failed"),
        "read other data than written: {said}"
    );
    Ok(())
}

/// With everything stopped: each replica's store is sound and holds the same volume.
fn verify_stores(
    cluster: &Cluster,
    folder: &Path,
    volume: &crate::cluster::Volume,
    expected: &str,
    account: &Account,
) -> anyhow::Result<()> {
    let blockd = binary("ankole-blockd")?;
    for replica in &volume.replicas {
        let store = cluster.store(&replica.node);
        let shown = store.display().to_string();
        capture(&blockd, &["verify", &shown])?;
        let directory = store
            .join("ankole/replicas")
            .join(&replica.id)
            .display()
            .to_string();
        let raw = folder.join(format!("{}.raw", replica.node));
        capture(&blockd, &["export", &directory, &raw.display().to_string()])?;
        let found = digest::of_file(&raw)?;
        ensure!(
            found == expected,
            "the replica on {} holds {found}",
            replica.node
        );
        std::fs::remove_file(&raw)?;
        account.say(&format!(
            "{}: store verified, exported SHA-256 matches",
            replica.node
        ));
    }
    Ok(())
}
