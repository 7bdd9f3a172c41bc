//! Making and removing whole replicas.

use std::io;
use std::path::{Path, PathBuf};

use ankole_proto::{Credential, LayerId, ReplicaId, VolumeId, VolumeSize};

use super::descriptor::{Descriptor, FILE_NAME};
use super::fault::is_full;
use super::refusal::Medium;
use crate::disk::{Disk, not_in_use};
use crate::layer::{LayerFiles, Lengths};

/// What a new replica is to be.
#[derive(Debug, Clone)]
pub struct ReplicaSpec {
    /// Its id.
    pub replica: ReplicaId,
    /// Of which volume.
    pub volume: VolumeId,
    /// How large.
    pub size: VolumeSize,
    /// The empty head to begin with.
    pub base_layer: LayerId,
    /// What opens it.
    pub credential: Credential,
}

/// Why a replica was not created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A replica stands there already.
    #[error("there is a replica already")]
    Exists,
    /// The disk refused.
    #[error(transparent)]
    Medium(#[from] Medium),
}

impl From<io::Error> for CreateError {
    fn from(source: io::Error) -> Self {
        Self::Medium(if is_full(&source) {
            Medium::NoSpace
        } else {
            Medium::Io {
                act: "creating a replica",
                source,
            }
        })
    }
}

pub(super) fn aside_of(directory: &Path, suffix: &str) -> PathBuf {
    let mut name = directory.file_name().unwrap_or_default().to_os_string();
    name.push(suffix);
    directory.with_file_name(name)
}

pub(super) fn parent_of(directory: &Path) -> &Path {
    directory.parent().unwrap_or(Path::new(""))
}

/// Creates a replica in `directory`, durably and at once: it is built in `directory` with the suffix
/// `.creating` and renamed. What an interrupted creation left there is removed first.
///
/// # Errors
///
/// [`CreateError`].
pub fn create<D: Disk>(disk: &D, directory: &Path, spec: &ReplicaSpec) -> Result<(), CreateError> {
    if exists_durably(disk, directory)? {
        return Err(CreateError::Exists);
    }
    let aside = aside_of(directory, ".creating");
    if exists(disk, &aside)? {
        remove_tree(disk, &aside)?;
    }
    let layers = aside.join("layers");
    disk.create_dir(&aside)?;
    disk.create_dir(&layers)?;
    LayerFiles::create(disk, &aside, spec.base_layer, Lengths::of(spec.size))?;
    disk.sync_dir(&layers)?;
    disk.replace_file(&aside.join(FILE_NAME), &Descriptor::new(spec).encode())
        .map_err(not_in_use)?;
    disk.rename(&aside, directory)?;
    disk.sync_dir(parent_of(directory))?;
    Ok(())
}

/// Removes a replica: `directory` is renamed with the suffix `.deleting` and then emptied. Repeated
/// after an interruption it goes on. Nobody may use the replica.
///
/// # Errors
///
/// What the system said.
pub fn destroy<D: Disk>(disk: &D, directory: &Path) -> io::Result<()> {
    let aside = aside_of(directory, ".deleting");
    if exists(disk, &aside)? {
        remove_tree(disk, &aside)?;
    }
    if exists(disk, directory)? {
        disk.rename(directory, &aside)?;
        disk.sync_dir(parent_of(directory))?;
        remove_tree(disk, &aside)?;
    }
    disk.sync_dir(parent_of(directory))
}

/// Whether a replica stands there, by a name that stays: the call that gave it may have failed when
/// it synced that, and the caller takes what exists for what it asked for.
pub(super) fn exists_durably<D: Disk>(disk: &D, directory: &Path) -> io::Result<bool> {
    let is_there = exists(disk, directory)?;
    if is_there {
        disk.sync_dir(parent_of(directory))?;
    }
    Ok(is_there)
}

pub(super) fn exists<D: Disk>(disk: &D, directory: &Path) -> io::Result<bool> {
    match disk.list(directory) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the directory of a replica with all that a replica has in it.
pub(super) fn remove_tree<D: Disk>(disk: &D, directory: &Path) -> io::Result<()> {
    let layers = directory.join("layers");
    for name in disk.list(directory)? {
        if name == "layers" {
            for file in disk.list(&layers)? {
                disk.remove_file(&layers.join(file))?;
            }
            disk.remove_dir(&layers)?;
        } else {
            disk.remove_file(&directory.join(name))?;
        }
    }
    disk.remove_dir(directory)
}
