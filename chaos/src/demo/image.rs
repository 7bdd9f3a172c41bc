//! An ext4 image full of real files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::cluster::run;

/// At least so much of real files goes into the image.
const PAYLOAD_BYTES: u64 = 320 << 20;
/// Larger files are passed over, so that there are many.
const FILE_BYTES_MAX: u64 = 64 << 20;
const SOURCES: [&str; 3] = ["/usr/lib", "/usr/share", "/usr/bin"];

/// What is in the image.
pub(super) struct Image {
    pub(super) path: PathBuf,
    pub(super) files: u64,
    pub(super) payload_bytes: u64,
}

/// Makes an ext4 image of this size in the folder, from files found on this machine.
pub(super) fn make(folder: &Path, bytes: u64) -> anyhow::Result<Image> {
    let staging = folder.join("files");
    fs::create_dir_all(&staging)?;
    let (mut files, mut payload_bytes) = (0, 0);
    let mut folders: Vec<PathBuf> = SOURCES.iter().rev().map(PathBuf::from).collect();
    while payload_bytes < PAYLOAD_BYTES {
        let Some(next) = folders.pop() else { break };
        let Ok(entries) = fs::read_dir(&next) else {
            continue;
        };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && payload_bytes < PAYLOAD_BYTES {
                let length = entry.metadata().map_or(0, |metadata| metadata.len());
                if length == 0 || length > FILE_BYTES_MAX {
                    continue;
                }
                let target = staging.join(format!("{files:06}"));
                if fs::copy(entry.path(), target).is_ok() {
                    files += 1;
                    payload_bytes += length;
                }
            }
        }
    }
    ensure!(
        payload_bytes >= PAYLOAD_BYTES,
        "only {payload_bytes} bytes of files found under {SOURCES:?}"
    );
    let path = folder.join("image.raw");
    fs::File::create(&path)?.set_len(bytes)?;
    let (staged, target) = (staging.display().to_string(), path.display().to_string());
    run("mkfs.ext4", &["-q", "-F", "-d", &staged, &target])
        .context("mkfs.ext4 (package e2fsprogs)")?;
    fs::remove_dir_all(&staging)?;
    Ok(Image {
        path,
        files,
        payload_bytes,
    })
}
