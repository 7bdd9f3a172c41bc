//! Removing replicas: out of sight at once, off the disk in the background.
//!
//! A replica's directory is renamed into `trash/`, durably, and is gone from then on, whatever
//! happens next. What lies there is removed file by file, also what an earlier daemon left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ankole_proto::ReplicaId;

use super::disk_root::DiskRoot;
use super::{REPLICAS, TRASH};
use crate::disk::Disk;

/// Moves a replica's directory into the trash. One that is not there is gone already.
///
/// # Errors
///
/// As the system says; the replica may then be either there or gone.
pub(super) fn discard(root: &DiskRoot, id: ReplicaId) -> io::Result<()> {
    // A name of its own, should a replica of the same id have been discarded before.
    let aside = Path::new(TRASH).join(format!("{id}.{:016x}", rand::random::<u64>()));
    match root.disk().rename(&DiskRoot::replica_dir(id), &aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    root.disk().sync_dir(Path::new(REPLICAS))?;
    root.disk().sync_dir(Path::new(TRASH))
}

/// Removes one file or empty directory from the trash; `false` when there is nothing.
///
/// # Errors
///
/// As the system says; the next call tries again.
pub(super) fn empty_one(root: &DiskRoot) -> io::Result<bool> {
    let trash = root.disk().root().join(TRASH);
    let Some(mut path) = first_in(&trash)? else {
        return Ok(false);
    };
    while fs::symlink_metadata(&path)?.is_dir() {
        match first_in(&path)? {
            Some(inner) => path = inner,
            None => {
                fs::remove_dir(&path)?;
                return Ok(true);
            }
        }
    }
    fs::remove_file(&path)?;
    Ok(true)
}

fn first_in(directory: &Path) -> io::Result<Option<PathBuf>> {
    let first = fs::read_dir(directory)?.next().transpose()?;
    Ok(first.map(|entry| entry.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discarded_replica_is_gone_at_once_and_emptied_later() {
        let dir = tempfile::tempdir().unwrap();
        let root = DiskRoot::open(dir.path()).unwrap();
        let id = ReplicaId::from_bits(7);
        let at = root.disk().root().join(DiskRoot::replica_dir(id));
        for _ in 0..2 {
            fs::create_dir_all(at.join("layers")).unwrap();
            fs::write(at.join("layers/x.img"), b"data").unwrap();
            discard(&root, id).unwrap();
            assert!(!at.exists());
            discard(&root, id).unwrap();
        }
        // Two files, two directories with one directory each.
        for _ in 0..6 {
            assert!(empty_one(&root).unwrap());
        }
        assert!(!empty_one(&root).unwrap());
    }
}
