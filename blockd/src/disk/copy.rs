//! Copying between real files, past the memory of the process.

use std::io::{self, IoSlice};
use std::ops::Range;

use std::os::fd::AsRawFd;

use rustix::fs;
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

use super::local::{LocalFile, WRITE_BYTES_MAX};
use super::{DiskFile, Sharing, read_exact_at, too_short};

/// Says that the system, the filesystem or this pair of files cannot do it (the last: a container
/// that does not allow the call); a plain copy may.
const CANNOT: [Errno; 6] = [
    Errno::XDEV,
    Errno::NOSYS,
    Errno::OPNOTSUPP,
    Errno::NOTTY,
    Errno::INVAL,
    Errno::PERM,
];

/// `struct file_clone_range` of `linux/fs.h`.
#[repr(C)]
struct CloneRange {
    source: i64,
    source_offset: u64,
    source_length: u64,
    target_offset: u64,
}

/// `_IOW(0x94, 13, struct file_clone_range)`
const FICLONERANGE: Opcode = opcode::write::<CloneRange>(0x94, 13);

/// Has `to` refer to the blocks of a range with `FICLONERANGE`.
pub(super) fn share_range(
    from: &LocalFile,
    range: Range<u64>,
    to: &LocalFile,
) -> io::Result<Sharing> {
    if range.is_empty() {
        // To the system that would mean all that follows.
        return Ok(Sharing::Shared);
    }
    let request = CloneRange {
        source: i64::from(from.fd().as_raw_fd()),
        source_offset: range.start,
        source_length: range.end - range.start,
        target_offset: range.start,
    };
    // SAFETY: the opcode takes this structure, and only reads it.
    let setter = unsafe { Setter::<FICLONERANGE, CloneRange>::new(request) };
    // SAFETY: both descriptors are open for the time of the call; the kernel touches no memory of
    // this process but the structure.
    match unsafe { ioctl(to.fd(), setter) } {
        Ok(()) => Ok(Sharing::Shared),
        Err(error) if CANNOT.contains(&error) => Ok(Sharing::Unsupported),
        Err(error) => Err(error.into()),
    }
}

/// Copies a range with `copy_file_range`, which shares the blocks where the filesystem has reflinks
/// (XFS, btrfs), and elsewhere copies them within the kernel, in pieces of 64 KiB.
pub(super) fn copy_range(from: &LocalFile, range: Range<u64>, to: &LocalFile) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let (mut source, mut target) = (at, at);
        let bytes = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let copied = fs::copy_file_range(
            from.fd(),
            Some(&mut source),
            to.fd(),
            Some(&mut target),
            bytes,
        );
        match copied {
            Ok(0) => return Err(too_short(from)),
            Ok(bytes) => at += bytes as u64,
            Err(Errno::INTR) => {}
            Err(error) if CANNOT.contains(&error) => {
                return through_memory(from, at..range.end, to);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn through_memory(from: &LocalFile, range: Range<u64>, to: &LocalFile) -> io::Result<()> {
    let mut buffer = vec![0; WRITE_BYTES_MAX];
    let mut at = range.start;
    while at < range.end {
        let left = usize::try_from(range.end - at).unwrap_or(usize::MAX);
        let piece = buffer
            .get_mut(..left.min(WRITE_BYTES_MAX))
            .unwrap_or_default();
        read_exact_at(from, piece, at)?;
        to.write_at(&[IoSlice::new(piece)], at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::disk::{Disk, LocalDisk};

    const BYTES: usize = 300_000;
    const RANGE: Range<u64> = 4096..270_336;

    /// A file of this disk with data from end to end.
    fn filled(disk: &LocalDisk) -> (LocalFile, Vec<u8>) {
        let file = disk.create(Path::new("from")).unwrap();
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().step_by(7).take(BYTES).collect();
        file.write_at(&[IoSlice::new(&bytes)], 0).unwrap();
        (file, bytes)
    }

    fn check(to: &LocalFile, bytes: &[u8]) {
        let range = usize::try_from(RANGE.start).unwrap()..usize::try_from(RANGE.end).unwrap();
        let mut read = vec![0; range.end];
        assert_eq!(to.read_at(&mut read, 0).unwrap(), range.end);
        assert!(read[range.clone()] == bytes[range.clone()]);
        assert!(read[..range.start].iter().all(|byte| *byte == 0));
        assert_eq!(to.len().unwrap(), RANGE.end, "copied too much");
    }

    #[test]
    fn a_range_is_copied_to_the_same_place_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let disk = LocalDisk::open(folder.path()).unwrap();
        let (from, bytes) = filled(&disk);
        let to = disk.create(Path::new("to")).unwrap();
        from.copy_range(RANGE, &to).unwrap();
        check(&to, &bytes);
        // What the copy shares with its source, if anything, is not the other's to change.
        to.write_at(&[IoSlice::new(&[0xff; 4096])], 8192).unwrap();
        let mut read = [0; 4096];
        read_exact_at(&from, &mut read, 8192).unwrap();
        assert!(read == bytes[8192..12288]);
    }

    #[test]
    fn a_shared_range_is_at_the_same_place_and_what_cannot_be_shared_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let disk = LocalDisk::open(folder.path()).unwrap();
        let (from, bytes) = filled(&disk);
        let to = disk.create(Path::new("to")).unwrap();
        // Which of the two depends on the filesystem.
        match from.share_range(RANGE, &to).unwrap() {
            Sharing::Shared => check(&to, &bytes),
            Sharing::Unsupported => assert_eq!(to.len().unwrap(), 0),
        }
        let memory = LocalFile::new(
            fs::memfd_create("to", fs::MemfdFlags::CLOEXEC).unwrap(),
            "memory".into(),
        );
        let elsewhere = from.share_range(RANGE, &memory).unwrap();
        assert_eq!(elsewhere, Sharing::Unsupported);
        assert_eq!(memory.len().unwrap(), 0);
    }

    #[test]
    fn a_file_that_the_kernel_cannot_copy_to_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let disk = LocalDisk::open(folder.path()).unwrap();
        let (from, bytes) = filled(&disk);
        // A file of another filesystem.
        let memory = fs::memfd_create("to", fs::MemfdFlags::CLOEXEC).unwrap();
        let direct = fs::copy_file_range(from.fd(), Some(&mut 0), &memory, Some(&mut 0), 4096);
        assert!(CANNOT.contains(&direct.unwrap_err()));
        let to = LocalFile::new(memory, "memory".into());
        from.copy_range(RANGE, &to).unwrap();
        check(&to, &bytes);
    }

    #[test]
    fn a_source_that_ends_early_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let disk = LocalDisk::open(folder.path()).unwrap();
        let (from, _) = filled(&disk);
        let to = disk.create(Path::new("to")).unwrap();
        let copied = from.copy_range(0..BYTES as u64 + 1, &to);
        assert_eq!(copied.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
