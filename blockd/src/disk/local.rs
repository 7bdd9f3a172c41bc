//! Real files: the only place of blockd that makes raw system calls.

use std::io::{self, IoSlice, Read};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use parking_lot::Mutex;
use rustix::fs::{self, Advice, AtFlags, CWD, FallocateFlags, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::{Disk, DiskFile, Sharing, Space, in_doubt};

/// The longest list of buffers one system call takes; more are written in turns.
const IOVECS_MAX: usize = 1024;
/// The longest write that is given to the system in one call, and what longer ones are cut at. The
/// page cache keeps what was written at once as one large folio, and ext4 walks all blocks of a
/// folio at each later write into it: an overwrite of 4 KiB takes 11 µs in folios of 1 MiB and 2 µs
/// in those of 64 KiB, which are written as fast.
pub(super) const WRITE_BYTES_MAX: usize = 64 << 10;
/// What holes can be told apart at, and so the largest filesystem block that a store can stand on.
const FILESYSTEM_BLOCK_BYTES_MAX: u64 = 4096;

/// A directory of the host.
#[derive(Debug, Clone)]
pub struct LocalDisk {
    root: Arc<PathBuf>,
    access: Access,
}

/// What may be done with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    ReadWrite,
    /// No file is opened for writing, so that it works on a filesystem that is mounted read-only.
    ReadOnly,
}

/// A file of the host. What goes wrong with it is told with its path.
#[derive(Debug, Clone)]
pub struct LocalFile {
    open: Arc<OpenFile>,
}

#[derive(Debug)]
struct OpenFile {
    fd: OwnedFd,
    path: PathBuf,
    syncs: Mutex<Syncs>,
}

/// Whether all syncs of an open file have succeeded. The system tells a failed writeback to one sync
/// of an open file only: one that ran beside it, or came later, would be told that all is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Syncs {
    Sound,
    Failed,
}

impl LocalFile {
    pub(super) fn new(fd: OwnedFd, path: PathBuf) -> Self {
        Self {
            open: Arc::new(OpenFile {
                fd,
                path,
                syncs: Mutex::new(Syncs::Sound),
            }),
        }
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.open.fd
    }

    /// The error with the file's path.
    fn named(&self, error: impl Into<io::Error>) -> io::Error {
        let error = error.into();
        io::Error::new(
            error.kind(),
            format!("{}: {error}", self.open.path.display()),
        )
    }

    /// Syncs by `sync`, one call at a time; after one that failed all fail.
    fn sync_by(&self, sync: impl FnOnce(&OwnedFd) -> rustix::io::Result<()>) -> io::Result<()> {
        let mut syncs = self.open.syncs.lock();
        if *syncs == Syncs::Failed {
            return Err(self.named(io::Error::other("an earlier sync of the file has failed")));
        }
        sync(self.fd()).map_err(|error| {
            *syncs = Syncs::Failed;
            self.named(error)
        })
    }
}

impl LocalDisk {
    /// The disk with this directory as its root.
    ///
    /// # Errors
    ///
    /// When it is not a directory, or its filesystem cannot hold a store: its blocks must not be
    /// larger than 4096 bytes.
    pub fn open(root: &Path) -> io::Result<Self> {
        Self::open_with(root, Access::ReadWrite)
    }

    /// The same to look at only: whatever would change something is refused.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_read_only(root: &Path) -> io::Result<Self> {
        Self::open_with(root, Access::ReadOnly)
    }

    fn open_with(root: &Path, access: Access) -> io::Result<Self> {
        let fd = fs::open(root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let block_bytes = fs::fstatvfs(&fd)?.f_bsize;
        if block_bytes > FILESYSTEM_BLOCK_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{}: the filesystem's blocks are {block_bytes} bytes; a store needs 4096 or \
                     smaller",
                    root.display()
                ),
            ));
        }
        Ok(Self {
            root: Arc::new(root.to_path_buf()),
            access,
        })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where something stands that is to be changed.
    fn to_change(&self, path: &Path) -> io::Result<PathBuf> {
        match self.access {
            Access::ReadWrite => Ok(self.root.join(path)),
            Access::ReadOnly => Err(Errno::ROFS.into()),
        }
    }

    fn open_file(&self, path: PathBuf, flags: OFlags) -> io::Result<LocalFile> {
        let access = match self.access {
            Access::ReadWrite => OFlags::RDWR,
            Access::ReadOnly => OFlags::RDONLY,
        };
        let flags = flags | access | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let open = |flags| fs::open(&path, flags, Mode::RUSR | Mode::WUSR);
        // Nobody asks when a block was last read, and looking whether that time is to be noted takes a
        // twentieth of a cached read. The system refuses it for files of another user.
        let fd = match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => open(flags)?,
            opened => opened?,
        };
        Ok(LocalFile::new(fd, path))
    }
}

impl Disk for LocalDisk {
    type File = LocalFile;

    fn open(&self, path: &Path) -> io::Result<LocalFile> {
        self.open_file(self.root.join(path), OFlags::empty())
    }

    fn create(&self, path: &Path) -> io::Result<LocalFile> {
        self.open_file(self.to_change(path)?, OFlags::CREATE | OFlags::TRUNC)
    }

    fn read_file(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        let file = std::fs::File::open(self.root.join(path))?;
        let mut bytes = Vec::new();
        file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("longer than {bytes_max} bytes"),
            ));
        }
        Ok(bytes)
    }

    fn replace_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let aside = path.with_extension("new");
        let written = self.create(&aside).and_then(|file| {
            file.write_at(&[IoSlice::new(bytes)], 0)?;
            file.sync_by(|fd| fs::fsync(fd))
        });
        if written.is_err() {
            // The next call begins with another file: a failed sync is never tried again on the same.
            let _gone = self.remove_file(&aside);
        }
        written?;
        self.rename(&aside, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new("")))
            .map_err(in_doubt)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(fs::rename(self.to_change(from)?, self.to_change(to)?)?)
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        Ok(fs::link(self.to_change(existing)?, self.to_change(new)?)?)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        Ok(fs::unlink(self.to_change(path)?)?)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        Ok(fs::unlinkat(
            CWD,
            self.to_change(path)?,
            AtFlags::REMOVEDIR,
        )?)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Ok(fs::mkdir(self.to_change(path)?, Mode::RWXU)?)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.root.join(path))? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::open(self.to_change(path)?, flags, Mode::empty())?;
        Ok(fs::fsync(directory)?)
    }

    fn space(&self) -> io::Result<Space> {
        let stat = fs::statvfs(self.root.as_path())?;
        Ok(Space {
            capacity_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

impl DiskFile for LocalFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match rustix::io::pread(self.fd(), rest, offset + done as u64) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.named(error)),
            }
        }
        Ok(done)
    }

    fn append_to(&self, out: &mut BytesMut, bytes: usize, offset: u64) -> io::Result<usize> {
        out.reserve(bytes);
        let mut done = 0;
        while done < bytes {
            let spare = out.spare_capacity_mut();
            let wanted = spare.len().min(bytes - done);
            let (spare, _) = spare.split_at_mut(wanted);
            match rustix::io::pread(self.fd(), spare, offset + done as u64) {
                Ok(([], _)) => break,
                Ok((read, _)) => {
                    let (more, length) = (read.len(), out.len());
                    // SAFETY: the `more` bytes behind the first `length` are within the capacity,
                    // of which `spare` is a part, and the system has just written them.
                    unsafe { out.set_len(length + more) };
                    done += more;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.named(error)),
            }
        }
        Ok(done)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: usize = buffers.iter().map(|buffer| buffer.len()).sum();
        if bytes <= room(offset) && buffers.len() <= IOVECS_MAX {
            return write_piece(self.fd(), buffers, offset).map_err(|error| self.named(error));
        }
        let mut piece = Piece {
            fd: self.fd(),
            buffers: Vec::new(),
            bytes: 0,
            offset,
        };
        let added = buffers.iter().try_for_each(|buffer| piece.add(buffer));
        added
            .and_then(|()| piece.write())
            .map_err(|error| self.named(error))
    }

    fn share_range(&self, range: Range<u64>, to: &Self) -> io::Result<Sharing> {
        super::copy::share_range(self, range, to).map_err(|error| to.named(error))
    }

    fn copy_range(&self, range: Range<u64>, to: &Self) -> io::Result<()> {
        super::copy::copy_range(self, range, to).map_err(|error| to.named(error))
    }

    fn punch_hole(&self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fs::fallocate(self.fd(), flags, range.start, range.end - range.start)
            .map_err(|error| self.named(error))
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let start = match fs::seek(self.fd(), SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(error) => return Err(self.named(error)),
        };
        let end = fs::seek(self.fd(), SeekFrom::Hole(start)).map_err(|error| self.named(error))?;
        Ok(Some(start..end))
    }

    fn write_out(&self, range: Range<u64>) {
        // Linux begins to write dirty pages that are not needed any more.
        if let Some(bytes) = NonZeroU64::new(range.end.saturating_sub(range.start)) {
            let _only_advice = fs::fadvise(self.fd(), range.start, Some(bytes), Advice::DontNeed);
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_by(|fd| fs::fdatasync(fd))
    }

    fn len(&self) -> io::Result<u64> {
        let stat = fs::fstat(self.fd()).map_err(|error| self.named(error))?;
        u64::try_from(stat.st_size).map_err(io::Error::other)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        fs::ftruncate(self.fd(), bytes).map_err(|error| self.named(error))
    }

    fn links(&self) -> io::Result<u64> {
        let stat = fs::fstat(self.fd()).map_err(|error| self.named(error))?;
        Ok(stat.st_nlink)
    }

    fn label(&self) -> String {
        self.open.path.display().to_string()
    }
}

/// Bytes from here to the next place where writes are cut.
fn room(offset: u64) -> usize {
    let into = usize::try_from(offset % WRITE_BYTES_MAX as u64).unwrap_or_default();
    WRITE_BYTES_MAX - into
}

/// What the next system call writes.
struct Piece<'a> {
    fd: &'a OwnedFd,
    buffers: Vec<IoSlice<'a>>,
    bytes: usize,
    offset: u64,
}

impl<'a> Piece<'a> {
    fn add(&mut self, mut buffer: &'a [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            let left = room(self.offset) - self.bytes;
            let (now, later) = buffer.split_at(left.min(buffer.len()));
            self.buffers.push(IoSlice::new(now));
            self.bytes += now.len();
            if now.len() == left || self.buffers.len() == IOVECS_MAX {
                self.write()?;
            }
            buffer = later;
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        if self.bytes > 0 {
            write_piece(self.fd, &self.buffers, self.offset)?;
        }
        self.offset += self.bytes as u64;
        self.bytes = 0;
        self.buffers.clear();
        Ok(())
    }
}

fn write_piece(fd: impl AsFd, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
    if let [_] = buffers {
        // One buffer needs no list.
        return write_rest(fd, buffers, offset, 0);
    }
    let bytes: usize = buffers.iter().map(|buffer| buffer.len()).sum();
    let done = match rustix::io::pwritev(&fd, buffers, offset) {
        Ok(done) => done,
        Err(Errno::INTR) => 0,
        Err(error) => return Err(error.into()),
    };
    if done < bytes {
        return write_rest(fd, buffers, offset, done);
    }
    Ok(())
}

/// Finishes a vectored write that the system cut short after `done` bytes.
fn write_rest(
    fd: impl AsFd,
    buffers: &[IoSlice<'_>],
    offset: u64,
    mut done: usize,
) -> io::Result<()> {
    let mut start = 0;
    for buffer in buffers {
        let end = start + buffer.len();
        while done < end {
            let rest = buffer.get(done - start..).unwrap_or_default();
            match rustix::io::pwrite(&fd, rest, offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => done += bytes,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        start = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_write_in_odd_pieces_arrives_whole() {
        let folder = tempfile::tempdir().unwrap();
        let disk = LocalDisk::open(folder.path()).unwrap();
        let file = disk.create(Path::new("file")).unwrap();
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().step_by(7).take(300_000).collect();
        let buffers: Vec<IoSlice<'_>> = bytes[..3000]
            .iter()
            .map(std::slice::from_ref)
            .chain(bytes[3000..].chunks(70_001))
            .map(IoSlice::new)
            .collect();
        let offset = 65_530;
        file.write_at(&buffers, offset).unwrap();
        let mut read = vec![0; bytes.len()];
        assert_eq!(file.read_at(&mut read, offset).unwrap(), bytes.len());
        assert!(read == bytes);
        assert_eq!(file.len().unwrap(), offset + bytes.len() as u64);
    }

    #[test]
    fn after_a_failed_sync_all_fail_and_tell_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let disk = LocalDisk::open(folder.path()).unwrap();
        let file = disk.create(Path::new("file")).unwrap();
        let same = file.clone();
        file.sync().unwrap();
        let failed = file.sync_by(|_| Err(Errno::NOSPC)).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
        let path = folder.path().join("file").display().to_string();
        for error in [failed, same.sync().unwrap_err(), file.sync().unwrap_err()] {
            assert!(error.to_string().starts_with(&path), "{error}");
        }
        disk.open(Path::new("file")).unwrap().sync().unwrap();
    }

    #[test]
    fn what_is_read_is_appended_and_ends_with_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let disk = LocalDisk::open(folder.path()).unwrap();
        let file = disk.create(Path::new("file")).unwrap();
        file.write_at(&[IoSlice::new(b"0123456789")], 0).unwrap();
        let mut out = BytesMut::from(&b"before "[..]);
        assert_eq!(file.append_to(&mut out, 4, 3).unwrap(), 4);
        assert_eq!(out, &b"before 3456"[..]);
        out.reserve(1000);
        assert_eq!(file.append_to(&mut out, 100, 8).unwrap(), 2);
        assert_eq!(out, &b"before 345689"[..]);
        assert_eq!(file.append_to(&mut out, 0, 0).unwrap(), 0);
        assert_eq!(file.append_to(&mut out, 5, 10).unwrap(), 0);
    }

    #[test]
    fn a_read_only_disk_opens_nothing_for_writing_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let disk = LocalDisk::open(folder.path()).unwrap();
        let (path, other) = (Path::new("file"), Path::new("other"));
        disk.replace_file(path, b"0123456789").unwrap();
        let disk = LocalDisk::open_read_only(folder.path()).unwrap();
        let file = disk.open(path).unwrap();
        let flags = fs::fcntl_getfl(file.fd()).unwrap();
        assert_eq!(flags & OFlags::ACCMODE, OFlags::RDONLY);
        let mut read = [0; 4];
        assert_eq!(file.read_at(&mut read, 3).unwrap(), 4);
        assert_eq!(&read, b"3456");
        let refused = [
            disk.create(other).map(drop),
            disk.replace_file(path, b"x"),
            disk.rename(path, other),
            disk.hard_link(path, other),
            disk.remove_file(path),
            disk.remove_dir(path),
            disk.create_dir(other),
            disk.sync_dir(Path::new("")),
        ];
        for result in refused {
            let kind = result.unwrap_err().kind();
            assert_eq!(kind, io::ErrorKind::ReadOnlyFilesystem);
        }
        assert!(file.write_at(&[IoSlice::new(b"x")], 0).is_err());
        assert!(file.set_len(0).is_err());
        assert_eq!(disk.list(Path::new("")).unwrap(), ["file"]);
        assert_eq!(disk.read_file(path, 100).unwrap(), b"0123456789");
    }
}
