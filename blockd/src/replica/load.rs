//! From the files to a replica in memory: `replica.json` and the maps are read, nothing else.

use std::io;
use std::path::{Path, PathBuf};

use ankole_proto::{ChunkNumber, LayerId, ReplicaId};

use super::census::Census;
use super::chunk_cache::{CacheBudget, ChunkCache};
use super::damages::Damages;
use super::descriptor::{BYTES_MAX, Descriptor, FILE_NAME, Mapped, Stop, StoredState};
use super::fault::FAULT_ATTEMPTS;
use super::flush::Dirty;
use super::index::Index;
use super::memory::Recollection;
use super::open_files::OpenFiles;
use super::private::{Privacy, is_left_behind};
use super::recover::recover_layer;
use super::scrub::Scrub;
use super::vacated::Vacated;
use super::{Allocation, Replica, Session, State};
use crate::disk::{Disk, DiskFile, in_doubt, is_in_doubt};
use crate::layer::{LayerFiles, Lengths, Part, RecordError, Tree, file_path};

/// Why a replica was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file is missing, damaged or not ours.
    #[error("{file}: {reason}; delete this replica and let it be rebuilt from a peer")]
    BadFile {
        /// Which file, from the root of the disk.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file is sound and belongs elsewhere.
    #[error(
        "{file}: {reason}: the file was renamed, copied or written over; put the right one in its \
         place, or delete this replica and let it be rebuilt from a peer"
    )]
    Foreign {
        /// Which file, from the root of the disk.
        file: String,
        /// Whose it is.
        reason: String,
    },
    /// The disk failed.
    #[error("{file}: {source}; check the disk")]
    Io {
        /// Which file, from the root of the disk.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// It failed before, or a sync just now, and stays failed (INV-10).
    #[error("{reason}; delete this replica and let it be rebuilt from a peer")]
    Faulted {
        /// What happened then.
        reason: String,
    },
}

/// Why a map was not read to its end.
#[derive(Debug)]
pub(super) enum ScanError {
    Io(io::Error),
    Record(ChunkNumber, RecordError),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Puts a layer's map on the index, if it is in the head's chain, and counts its blocks.
pub(super) fn scan_layer<F: DiskFile>(
    files: &LayerFiles<F>,
    index: &mut Index,
    in_chain: bool,
) -> Result<(), ScanError> {
    let slot = index.add_layer(files.layer);
    let mut mapped = Mapped::default();
    files.each_record(ScanError::Record, |chunk, record| {
        mapped.present += record.present.count() as u64;
        mapped.zero += record.zero.count() as u64;
        if in_chain {
            index.overlay(slot, chunk, &record);
        }
        Ok(())
    })?;
    index.set_mapped(files.layer, mapped);
    Ok(())
}

pub(super) fn file_error(path: &Path, error: io::Error) -> LoadError {
    let file = path.display().to_string();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            LoadError::BadFile {
                file,
                reason: error.to_string(),
            }
        }
        _ => LoadError::Io {
            file,
            source: error,
        },
    }
}

pub(super) fn scan_error(directory: &Path, layer: LayerId, error: ScanError) -> LoadError {
    let path = file_path(directory, layer, Part::Map);
    match error {
        ScanError::Io(error) => file_error(&path, error),
        ScanError::Record(chunk, error) => {
            let file = path.display().to_string();
            let reason = format!("at chunk {}: {error}", chunk.raw());
            match error {
                RecordError::Damaged => LoadError::BadFile { file, reason },
                RecordError::Misplaced { .. } => LoadError::Foreign { file, reason },
            }
        }
    }
}

pub(super) fn read_descriptor<D: Disk>(
    disk: &D,
    directory: &Path,
) -> Result<Descriptor, LoadError> {
    let path = directory.join(FILE_NAME);
    let bytes = disk
        .read_file(&path, BYTES_MAX)
        .map_err(|error| file_error(&path, error))?;
    Descriptor::decode(&bytes).map_err(|error| LoadError::BadFile {
        file: path.display().to_string(),
        reason: error.to_string(),
    })
}

/// Whose files stand in `directory`, by what they say themselves. Look before loading: loading
/// changes files.
///
/// # Errors
///
/// [`LoadError`] when `replica.json` cannot be read.
pub fn stored_id<D: Disk>(disk: &D, directory: &Path) -> Result<ReplicaId, LoadError> {
    Ok(read_descriptor(disk, directory)?.replica)
}

pub(super) fn open_layer<D: Disk>(
    disk: &D,
    directory: &Path,
    layer: LayerId,
    lengths: Lengths,
) -> Result<LayerFiles<D::File>, LoadError> {
    LayerFiles::open_to_use(disk, directory, layer, lengths)
        .map_err(|(part, error)| file_error(&file_path(directory, layer, part), error))
}

/// Makes it durable that `replica.json` is the one that was read: the process before may have ended
/// before it synced that. Else a crash could bring the old one back, after its layers are removed or
/// merged as the new one says.
fn sync_description<D: Disk>(disk: &D, directory: &Path) -> Result<(), LoadError> {
    disk.sync_dir(directory)
        .map_err(|error| file_error(directory, in_doubt(error)))
}

/// Removes files of layers that are not in the tree: a stop fell before or after they were.
fn remove_strays<D: Disk>(disk: &D, directory: &Path, tree: &Tree) -> Result<(), LoadError> {
    let layers = directory.join("layers");
    let names = disk
        .list(&layers)
        .map_err(|error| file_error(&layers, error))?;
    if names.iter().any(|name| is_left_behind(name)) {
        // A process may have ended between two renames. The second names of files that were to be
        // replaced go only when what the other names mean is durable.
        disk.sync_dir(&layers)
            .map_err(|error| file_error(&layers, in_doubt(error)))?;
    }
    for name in names {
        let of_layer = name.split_once('.').and_then(|(id, end)| {
            let ours = Part::ALL.iter().any(|part| part.extension() == end);
            id.parse::<LayerId>().ok().filter(|_| ours)
        });
        if of_layer.is_some_and(|layer| !tree.contains(layer)) || is_left_behind(&name) {
            let path = layers.join(name);
            disk.remove_file(&path)
                .map_err(|error| file_error(&path, error))?;
        }
    }
    Ok(())
}

/// After a sync that failed while loading the replica is faulted like any other (INV-10): the next
/// process would find in the page cache what may never have reached the medium, and go on from there.
fn record_failed_sync<D: Disk>(
    disk: &D,
    directory: &Path,
    descriptor: &Descriptor,
    error: LoadError,
) -> LoadError {
    let reason = match &error {
        LoadError::Io { file, source } if is_in_doubt(source) => format!("{file}: {source}"),
        _ => return error,
    };
    let mut next = descriptor.clone();
    next.state = StoredState::Faulted {
        reason: reason.clone(),
    };
    let path = directory.join(FILE_NAME);
    let record = || disk.replace_file(&path, &next.encode()).is_ok();
    let _only_if_it_can = (0..FAULT_ATTEMPTS).any(|_| record());
    LoadError::Faulted { reason }
}

impl<D: Disk> Replica<D> {
    /// Loads the replica in `directory`; after an unclean stop, repairs what it may have left.
    ///
    /// # Errors
    ///
    /// [`LoadError`]: report the replica as faulted with this message.
    pub fn load(disk: &D, directory: &Path) -> Result<Self, LoadError> {
        let descriptor = read_descriptor(disk, directory)?;
        let bad = |reason: String| LoadError::BadFile {
            file: directory.join(FILE_NAME).display().to_string(),
            reason,
        };
        let tree = descriptor.tree().map_err(|error| bad(error.to_string()))?;
        let credential = descriptor
            .credential()
            .map_err(|error| bad(error.to_string()))?;
        let state = match &descriptor.state {
            StoredState::Ready => State::Ready,
            StoredState::Rebuilding => State::Rebuilding,
            StoredState::Faulted { reason } => {
                return Err(LoadError::Faulted {
                    reason: reason.clone(),
                });
            }
        };
        let (index, head) = sync_description(disk, directory)
            .and_then(|()| remove_strays(disk, directory, &tree))
            .and_then(|()| read_layers(disk, directory, &descriptor, &tree))
            .map_err(|error| record_failed_sync(disk, directory, &descriptor, error))?;
        let size = descriptor.size;
        let sizes = descriptor.layers.iter().map(|layer| (layer.id, layer.size));
        let dirty = if descriptor.is_head_in_doubt() {
            Dirty::left_behind()
        } else {
            Dirty::default()
        };
        let mut damages = Damages::default();
        let scrub = Scrub::load(disk, directory, &descriptor, &mut damages);
        let mut replica = Self {
            disk: disk.clone(),
            directory: PathBuf::from(directory),
            memory: Recollection::loaded(descriptor.stop == Stop::Clean),
            files: OpenFiles::new(PathBuf::from(directory), sizes.collect(), head),
            descriptor,
            credential,
            boot: String::new(),
            tree,
            size,
            state,
            session: Session::Closed,
            allocation: Allocation::Allowed,
            index,
            chunks: ChunkCache::new(size, &CacheBudget::of(CacheBudget::DEFAULT_BYTES)),
            dirty,
            vacated: Vacated::default(),
            merge: None,
            settle: None,
            privacy: Privacy::new(),
            removed: Vec::new(),
            damages,
            scrub,
            census: Census::default(),
            rebuilds_begun: 0,
            resummed_blocks: 0,
            sums: Vec::new(),
            block_sums: Vec::new(),
        };
        replica.mark_unsettled().map_err(|error| LoadError::Io {
            file: directory.join(FILE_NAME).display().to_string(),
            source: io::Error::other(error),
        })?;
        Ok(replica)
    }

    /// After an unclean stop the head's blocks may lack their sums, until [`Self::settle_step`]
    /// has been over them.
    fn mark_unsettled(&mut self) -> Result<(), super::Medium> {
        if self.descriptor.stop == Stop::Clean {
            return Ok(());
        }
        let mut next = self.descriptor.clone();
        if let Some(head) = next.layer_mut(next.head) {
            head.unsettled = true;
        }
        match self.commit(next.clone()) {
            Err(super::Medium::NoSpace) => {
                // The stop on record stays unclean, so the next load marks it again.
                self.descriptor = next;
                Ok(())
            }
            other => other,
        }
    }
}

/// Refuses a map of which records are gone.
pub(super) fn check_mapped(
    directory: &Path,
    descriptor: &Descriptor,
    layer: LayerId,
    found: Mapped,
) -> Result<(), LoadError> {
    descriptor
        .check_mapped(layer, found)
        .map_err(|reason| LoadError::BadFile {
            file: file_path(directory, layer, Part::Map).display().to_string(),
            reason,
        })
}

/// Whether another replica has the layer's files too: then no rebuild here has written to them.
fn is_shared<F: DiskFile>(directory: &Path, files: &LayerFiles<F>) -> Result<bool, LoadError> {
    let path = file_path(directory, files.layer, Part::Image);
    let links = files.image.links();
    Ok(links.map_err(|error| file_error(&path, error))? > 1)
}

/// Repairs and reads every layer, base first; the index and the head's files.
fn read_layers<D: Disk>(
    disk: &D,
    directory: &Path,
    descriptor: &Descriptor,
    tree: &Tree,
) -> Result<(Index, LayerFiles<D::File>), LoadError> {
    // Before memory is taken for the size, a file of that length must back it.
    let head = open_layer(disk, directory, tree.head(), Lengths::of(descriptor.size))?;
    let mut index = Index::empty(descriptor.size);
    let chain = tree.chain();
    let branches = tree.layers().filter(|layer| !chain.contains(layer));
    for layer in branches.chain(chain.iter().rev().copied()) {
        let lengths = Lengths::of(descriptor.size_of(layer));
        let files = open_layer(disk, directory, layer, lengths)?;
        let in_doubt = match descriptor.stop {
            _ if layer == tree.head() => descriptor.is_head_in_doubt(),
            Stop::Unclean => descriptor.state == StoredState::Rebuilding,
            Stop::Clean => false,
        };
        if in_doubt && !is_shared(directory, &files)? {
            recover_layer(&files).map_err(|error| scan_error(directory, layer, error))?;
        }
        scan_layer(&files, &mut index, chain.contains(&layer))
            .map_err(|error| scan_error(directory, layer, error))?;
        let mapped = index.mapped(layer).unwrap_or_default();
        check_mapped(directory, descriptor, layer, mapped)?;
    }
    Ok((index, head))
}
