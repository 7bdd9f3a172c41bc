//! A node's disk that can be filled: a small file system of its own, on a file.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{FallocateFlags, fallocate};

use crate::cluster::run;
use crate::interrupt::{self, Undo};

/// For the replicas of every volume with as many snapshots as there may be.
const BYTES: u64 = 3 << 30;
/// What is asked for at once: the last piece that fits leaves less room than a chunk needs.
const PIECES: [u64; 4] = [64 << 20, 1 << 20, 64 << 10, 4 << 10];
const BALLAST: &str = "ballast";

/// A file system that is mounted until this is dropped or the program is told to end.
pub(super) struct SmallDisk {
    mounted_on: PathBuf,
    _undo: Undo,
}

impl SmallDisk {
    /// Mounts a new one on this folder, with its file at `image`.
    pub(super) fn mount(image: &Path, folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        File::create(image)?.set_len(BYTES)?;
        let shown = image.display().to_string();
        // No blocks kept for root, as who would use them, and none cleared later in the background.
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", options, &shown])?;
        let target = folder.display().to_string();
        run("mount", &["-o", "loop", &shown, &target])
            .context("a disk that can be filled takes a mount: run this as root")?;
        let mounted_on = folder.to_owned();
        let undo = interrupt::undo_with({
            let mounted_on = mounted_on.clone();
            move || unmount(&mounted_on)
        });
        Ok(Self {
            mounted_on,
            _undo: undo,
        })
    }

    /// Takes all its room.
    pub(super) fn fill(&self) -> anyhow::Result<()> {
        let ballast = File::create(self.mounted_on.join(BALLAST))?;
        let mut taken = 0;
        for piece in PIECES {
            while fallocate(&ballast, FallocateFlags::empty(), taken, piece).is_ok() {
                taken += piece;
            }
        }
        anyhow::ensure!(taken > 0, "the disk was full before it was filled");
        Ok(())
    }

    /// Gives it back.
    pub(super) fn free(&self) -> anyhow::Result<()> {
        std::fs::remove_file(self.mounted_on.join(BALLAST)).context("cannot free the disk")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.mounted_on);
    }
}

fn unmount(folder: &Path) {
    // Lazily: what still has a file open there is being ended.
    if let Err(error) = run("umount", &["-l".as_ref(), folder.as_os_str()]) {
        eprintln!("{error:#}");
    }
}
