//! The files of a copy, and how they take the place of the shared ones.

use std::io;
use std::path::{Path, PathBuf};

use ankole_proto::{BlockNumber, LayerId};

use crate::disk::{Disk, DiskFile, in_doubt, read_exact_at};
use crate::layer::{BLOCK, LayerFiles, Lengths, Part, file_path};

/// What is copied with one pair of calls at most.
pub(super) const COPY_BYTES_MAX: u64 = 1 << 20;
/// The end of the name of a copy that is being made.
pub(super) const COPY_SUFFIX: &str = "new";
/// The end of the second name of a file that is being replaced.
const OLD_SUFFIX: &str = "old";

/// Where a part is that has been copied to its end.
const END: u64 = u64::MAX;

/// A part of a layer on its way.
#[derive(Debug)]
pub(super) struct CopiedPart<D: Disk> {
    pub(super) part: Part,
    pub(super) from: D::File,
    pub(super) to: D::File,
    /// Everything before is copied; at last [`END`].
    pub(super) at: u64,
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether a name in the directory of layers is one that only the making of copies gives.
pub(in crate::replica) fn is_left_behind(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(rest, end)| {
        let of_layer = rest.split_once('.').is_some_and(|(id, part)| {
            id.parse::<LayerId>().is_ok() && Part::ALL.iter().any(|one| one.extension() == part)
        });
        of_layer && (end == COPY_SUFFIX || end == OLD_SUFFIX)
    })
}

/// Renames the copies over the shared files. The other replica sees that it is alone only after that
/// is durable. `every` are all files of the layer: of those that an earlier attempt has replaced
/// second names may be left.
pub(super) fn replace_all<D: Disk>(
    disk: &D,
    directory: &Path,
    paths: &[PathBuf],
    every: &[PathBuf],
) -> io::Result<()> {
    for path in paths {
        let old = beside(path, OLD_SUFFIX);
        match disk.hard_link(path, &old) {
            // Left by an earlier attempt, and perhaps of another file. What that attempt did is
            // durable before the name goes.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                disk.sync_dir(directory)?;
                disk.remove_file(&old)?;
                disk.hard_link(path, &old)?;
            }
            linked => linked?,
        }
    }
    disk.sync_dir(directory)?;
    for path in paths {
        disk.rename(&beside(path, COPY_SUFFIX), path)?;
    }
    disk.sync_dir(directory).map_err(in_doubt)?;
    for path in every {
        match disk.remove_file(&beside(path, OLD_SUFFIX)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed?,
        }
    }
    Ok(())
}

pub(super) fn shared_parts<F: DiskFile>(files: &LayerFiles<F>) -> io::Result<Vec<Part>> {
    let mut shared = Vec::new();
    for part in Part::ALL {
        if files.part(part).links()? > 1 {
            shared.push(part);
        }
    }
    Ok(shared)
}

pub(super) fn create_copies<D: Disk>(
    disk: &D,
    directory: &Path,
    files: &LayerFiles<D::File>,
) -> io::Result<Vec<CopiedPart<D>>> {
    let mut parts = Vec::new();
    for part in shared_parts(files)? {
        let path = file_path(directory, files.layer, part);
        let aside = beside(&path, COPY_SUFFIX);
        // What an attempt has left goes first: a sync of it may have failed (INV-10).
        match disk.remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let to = disk.create(&aside)?;
        to.set_len(Lengths::of(files.size).bytes(part))?;
        parts.push(CopiedPart {
            part,
            from: files.part(part).clone(),
            to,
            at: 0,
        });
    }
    Ok(parts)
}

/// Why a part was not copied.
#[derive(Debug)]
pub(super) enum CopyError {
    /// The disk does not give this block.
    Unreadable(BlockNumber),
    Io(io::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl<D: Disk> CopiedPart<D> {
    /// Copies the next at most so many bytes; holes stay holes. How many; 0 at the end.
    pub(super) fn copy_some(&mut self, bytes_max: u64) -> Result<u64, CopyError> {
        if self.at == END {
            // Asked for what lies there, not every filesystem says that it is nothing.
            return Ok(0);
        }
        let Some(data) = self.from.next_data(self.at)? else {
            self.at = END;
            return Ok(0);
        };
        let bytes = (data.end - data.start).min(bytes_max).min(COPY_BYTES_MAX);
        let range = data.start..data.start + bytes;
        if let Err(error) = self.from.copy_range(range, &self.to) {
            return Err(self.unreadable(data.start, bytes, error));
        }
        self.at = data.start + bytes;
        Ok(bytes)
    }

    /// Which block of the image cannot be read, or that the file cannot.
    fn unreadable(&self, start: u64, bytes: u64, error: io::Error) -> CopyError {
        let mut block = [0; BLOCK];
        (start..start + bytes)
            .step_by(BLOCK)
            .find(|offset| {
                self.part == Part::Image && read_exact_at(&self.from, &mut block, *offset).is_err()
            })
            .map_or(CopyError::Io(error), |offset| {
                CopyError::Unreadable(BlockNumber::at(offset))
            })
    }
}
