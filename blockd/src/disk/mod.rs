//! The medium of a store: a few synchronous calls that a real disk and a simulated one both answer.
//!
//! Owns every raw system call of blockd ([`local`], [`raise_open_files_limit`]). Promises what
//! `docs/disk-format.md` assumes of a filesystem and nothing more: what was not synced may be lost,
//! kept or torn by a crash, file by file and page by page ([`sim`] does exactly that). Must not know
//! what the files mean.
//!
//! Paths are relative to the root that the disk was opened with.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;

use bytes::BytesMut;

mod copy;
mod descriptors;
pub mod local;
#[cfg(any(test, feature = "sim"))]
pub mod sim;

pub use descriptors::raise_open_files_limit;
pub use local::LocalDisk;

/// A directory that holds stores. Clones mean the same disk.
pub trait Disk: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Creates an empty file for reading and writing; one that stands there is emptied.
    fn create(&self, path: &Path) -> io::Result<Self::File>;
    /// The whole of a small file, refused with `InvalidData` above `bytes_max`.
    fn read_file(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>>;
    /// Puts `bytes` in the place of the file, atomically and durably: written aside, synced,
    /// renamed over it, directory synced. An error of the last is never one of a full disk: which of
    /// the two files the disk has is not known then.
    fn replace_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    /// Gives a file or directory another name in the same directory. Durable after
    /// [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name.
    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory, whose parent must exist.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// How full the disk is.
    fn space(&self) -> io::Result<Space>;
}

/// An open file. Clones mean the same file.
pub trait DiskFile: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// Fills `buffer` from `offset` on; less than all only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Appends `bytes` bytes from `offset` on to `out`, fewer only at the end of the file; how many.
    /// After an error some may have been appended.
    fn append_to(&self, out: &mut BytesMut, bytes: usize, offset: u64) -> io::Result<usize> {
        let start = out.len();
        out.resize(start + bytes, 0);
        let read = self.read_at(out.get_mut(start..).unwrap_or_default(), offset)?;
        out.truncate(start + read);
        Ok(read)
    }
    /// Writes all of the buffers, one behind the other, from `offset` on. After an error any part
    /// may have been written.
    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Has another file of this disk refer to the same blocks at the same place, where the
    /// filesystem can do that (reflink): no data is read or written, and what one file changes later
    /// the other does not see. Durable, lost or torn as if it had been written. After an error any
    /// part may be shared.
    fn share_range(&self, range: Range<u64>, to: &Self) -> io::Result<Sharing>;
    /// Copies the range to the same place of another file of this disk, without the bytes passing
    /// through here where the filesystem can: by reference, else within the kernel. What is a hole
    /// here may be zeros there. After an error any part may have been copied.
    fn copy_range(&self, range: Range<u64>, to: &Self) -> io::Result<()>;
    /// Gives the space of the range back: it reads as zeros and counts as a hole.
    fn punch_hole(&self, range: Range<u64>) -> io::Result<()>;
    /// The first range at or after `offset` that may hold data; `None` when only holes follow.
    /// Precise to a block for files that are written in whole blocks.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>>;
    /// Advice that a range was written at once, and will not be read soon: it may go to the medium now,
    /// so that a later sync has little to wait for, and need not stay in memory. Promises nothing;
    /// what goes wrong is told by the next sync.
    fn write_out(&self, _range: Range<u64>) {}
    /// `fdatasync`: contents, length and allocation are durable.
    fn sync(&self) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends the file, with a hole.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// How many names the file has.
    fn links(&self) -> io::Result<u64>;
    /// What people know it by.
    fn label(&self) -> String;
}

/// What became of [`DiskFile::share_range`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// The other file has the blocks now.
    Shared,
    /// The filesystem cannot do it, or not with these files: nothing has changed.
    Unsupported,
}

/// How full a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// The size of the filesystem.
    pub capacity_bytes: u64,
    /// What can still be written.
    pub free_bytes: u64,
}

/// What is kept free for merges and metadata: the smaller of this and a part of the disk.
const RESERVE_BYTES_MAX: u64 = 1 << 30;
const RESERVE_PARTS: u64 = 50;

impl Space {
    /// What is kept free for merges and metadata: below it new blocks are refused.
    pub const fn reserve_bytes(self) -> u64 {
        let part = self.capacity_bytes / RESERVE_PARTS;
        if part < RESERVE_BYTES_MAX {
            part
        } else {
            RESERVE_BYTES_MAX
        }
    }
}

/// Reads exactly `buffer.len()` bytes.
///
/// # Errors
///
/// `UnexpectedEof` when the file ends before.
pub fn read_exact_at<F: DiskFile>(file: &F, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    if file.read_at(buffer, offset)? == buffer.len() {
        Ok(())
    } else {
        Err(too_short(file))
    }
}

/// Appends exactly `bytes` bytes to `out`.
///
/// # Errors
///
/// `UnexpectedEof` when the file ends before; then, and after any other error, some may have been
/// appended.
pub fn append_exact_at<F: DiskFile>(
    file: &F,
    out: &mut BytesMut,
    bytes: usize,
    offset: u64,
) -> io::Result<()> {
    if file.append_to(out, bytes, offset)? == bytes {
        Ok(())
    } else {
        Err(too_short(file))
    }
}

/// A file that ends where data was expected.
fn too_short<F: DiskFile>(file: &F) -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        format!("{}: shorter than its replica", file.label()),
    )
}

/// A failed sync of something in use, as an [`io::Error`] carries it.
#[derive(Debug, thiserror::Error)]
#[error("a sync failed: {0}")]
struct SyncFailed(io::Error);

/// The error of a failed sync of something in use. What is durable is not known then, so it must not
/// pass for a full disk, which refuses a call and leaves everything as it was.
pub fn in_doubt(error: io::Error) -> io::Error {
    io::Error::other(SyncFailed(error))
}

/// The error of a sync that [`Disk::replace_file`] tells, when nothing counts on the file yet: then
/// a full disk is one.
pub fn not_in_use(error: io::Error) -> io::Error {
    if !is_in_doubt(&error) {
        return error;
    }
    let kind = error.kind();
    let inner = error.into_inner().map(|inner| inner.downcast());
    match inner {
        Some(Ok(failed)) => {
            let SyncFailed(error) = *failed;
            error
        }
        Some(Err(inner)) => io::Error::new(kind, inner),
        None => kind.into(),
    }
}

/// Whether an error is one of [`in_doubt`].
pub fn is_in_doubt(error: &io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<SyncFailed>())
}
