//! Snapshots as plain files.
//!
//! ```text
//! "ANKSNAP1"                                       8 bytes
//! length u32 LE · crc32c u32 LE · RaftSnapshotHead
//! length u32 LE · crc32c u32 LE · RaftSnapshotRecord     × head.records, ascending keys
//! ```
//!
//! A file is written aside, synced, renamed, and its directory synced: `current.snapshot` is always
//! whole. A record's checksum covers its length too.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ankole_proto::ClusterId;
use ankole_proto::rpc::v1 as rpc;
use parking_lot::Mutex;
use prost::Message;

use super::codec::{self, CodecError};
use super::{LogId, SnapshotMeta, StoredMembership};
use crate::store::Record;

const MAGIC: &[u8; 8] = b"ANKSNAP1";
/// Above the greatest record: a value of the store, its key and their frame.
const RECORD_BYTES_MAX: usize = 256 * 1024;
const CURRENT: &str = "current.snapshot";
const ASIDE: &str = "next.snapshot";
const INCOMING: &str = "incoming.snapshot";

/// A snapshot file that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("cannot {0} the snapshot: {1}")]
    Io(&'static str, #[source] io::Error),
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
    #[error("the snapshot cannot be read: {0}")]
    Codec(#[from] CodecError),
}

fn failed(act: &'static str) -> impl FnOnce(io::Error) -> SnapshotError {
    move |error| SnapshotError::Io(act, error)
}

/// An open snapshot file, read and written by position. Stays readable when a newer one takes its
/// name.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFile {
    file: Arc<File>,
}

impl SnapshotFile {
    /// Its length in bytes.
    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Up to `length` bytes at a position; fewer only at the end.
    pub(super) fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset + filled as u64;
            match self.file.read_at(rest, at)? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Writes at a position.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
}

/// Everything a snapshot holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(super) applied: Option<LogId>,
    pub(super) membership: StoredMembership,
    pub(super) cluster_id: Option<ClusterId>,
    pub(super) records: Vec<Record>,
}

impl Contents {
    /// What openraft wants to know of it.
    pub(super) fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
            snapshot_id: self.applied.map(|id| id.to_string()).unwrap_or_default(),
        }
    }

    fn head(&self) -> rpc::RaftSnapshotHead {
        rpc::RaftSnapshotHead {
            applied: self.applied.as_ref().map(codec::log_id_out),
            membership: Some(codec::stored_membership_out(&self.membership)),
            id: self.meta().snapshot_id,
            cluster_id: codec::optional_cluster_id_out(self.cluster_id),
            records: self.records.len() as u64,
        }
    }
}

/// A snapshot's description as it crosses the network.
pub(super) fn meta_out(meta: &SnapshotMeta) -> rpc::RaftSnapshotHead {
    rpc::RaftSnapshotHead {
        applied: meta.last_log_id.as_ref().map(codec::log_id_out),
        membership: Some(codec::stored_membership_out(&meta.last_membership)),
        id: meta.snapshot_id.clone(),
        cluster_id: String::new(),
        records: 0,
    }
}

/// The other way round.
pub(super) fn meta_in(head: rpc::RaftSnapshotHead) -> Result<SnapshotMeta, CodecError> {
    let membership = head
        .membership
        .ok_or(CodecError::Missing("snapshot head", "membership"))?;
    Ok(SnapshotMeta {
        last_log_id: head.applied.map(codec::log_id_in),
        last_membership: codec::stored_membership_in(membership)?,
        snapshot_id: head.id,
    })
}

/// The directory that holds a manager's one snapshot. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotDirectory {
    path: PathBuf,
    newest: Arc<Mutex<Option<SnapshotMeta>>>,
}

impl SnapshotDirectory {
    /// Opens it, deletes what an interrupted write left, and reads the snapshot that is there.
    pub(crate) fn open(path: &Path) -> Result<(Self, Option<Contents>), SnapshotError> {
        fs::create_dir_all(path).map_err(failed("make room for"))?;
        for leftover in [ASIDE, INCOMING] {
            match fs::remove_file(path.join(leftover)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(SnapshotError::Io("clean up after", error));
                }
                _ => {}
            }
        }
        let contents = match open_current(path)? {
            Some(file) => Some(read_contents(&file)?),
            None => None,
        };
        let directory = Self {
            path: path.into(),
            newest: Arc::new(Mutex::new(contents.as_ref().map(Contents::meta))),
        };
        Ok((directory, contents))
    }

    /// The current snapshot, if there is one.
    pub(super) fn current(&self) -> Result<Option<(SnapshotMeta, SnapshotFile)>, SnapshotError> {
        let newest = self.newest.lock();
        match (newest.clone(), open_current(&self.path)?) {
            (Some(meta), Some(file)) => Ok(Some((meta, file))),
            _ => Ok(None),
        }
    }

    /// An empty file to receive a snapshot into. It has no name, so a crash leaves nothing.
    pub(super) fn incoming(&self) -> Result<SnapshotFile, SnapshotError> {
        let path = self.path.join(INCOMING);
        let file = File::options()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed("receive"))?;
        fs::remove_file(&path).map_err(failed("receive"))?;
        Ok(SnapshotFile {
            file: Arc::new(file),
        })
    }

    /// Makes these contents the current snapshot, durable when this returns, unless a newer one
    /// has been installed meanwhile. Returns the current one.
    pub(super) fn publish(
        &self,
        contents: &Contents,
    ) -> Result<(SnapshotMeta, SnapshotFile), SnapshotError> {
        let mut newest = self.newest.lock();
        let overtaken = newest
            .as_ref()
            .is_some_and(|meta| meta.last_log_id > contents.applied);
        if !overtaken {
            self.replace(contents)?;
            *newest = Some(contents.meta());
        }
        match (newest.clone(), open_current(&self.path)?) {
            (Some(meta), Some(file)) => Ok((meta, file)),
            _ => Err(SnapshotError::Damaged("it vanished after it was written")),
        }
    }

    fn replace(&self, contents: &Contents) -> Result<(), SnapshotError> {
        let aside = self.path.join(ASIDE);
        let file = File::create(&aside).map_err(failed("create"))?;
        let mut out = BufWriter::new(file);
        write_contents(&mut out, contents).map_err(failed("write"))?;
        let file = out
            .into_inner()
            .map_err(|error| SnapshotError::Io("write", error.into_error()))?;
        file.sync_all().map_err(failed("sync"))?;
        fs::rename(&aside, self.path.join(CURRENT)).map_err(failed("publish"))?;
        let directory = File::open(&self.path).map_err(failed("publish"))?;
        directory.sync_all().map_err(failed("publish"))
    }
}

fn open_current(directory: &Path) -> Result<Option<SnapshotFile>, SnapshotError> {
    match File::open(directory.join(CURRENT)) {
        Ok(file) => Ok(Some(SnapshotFile {
            file: Arc::new(file),
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SnapshotError::Io("open", error)),
    }
}

fn write_contents(out: &mut impl Write, contents: &Contents) -> io::Result<()> {
    out.write_all(MAGIC)?;
    write_record(out, &contents.head().encode_to_vec())?;
    for (key, value) in &contents.records {
        let record = rpc::RaftSnapshotRecord {
            key: key.clone(),
            value: value.clone(),
        };
        write_record(out, &record.encode_to_vec())?;
    }
    Ok(())
}

fn checksum(length: [u8; 4], bytes: &[u8]) -> u32 {
    ankole_proto::crc32c_of(&[&length, bytes])
}

fn write_record(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len())
        .map_err(io::Error::other)?
        .to_le_bytes();
    out.write_all(&length)?;
    out.write_all(&checksum(length, bytes).to_le_bytes())?;
    out.write_all(bytes)
}

fn read_record(from: &mut impl Read) -> Result<Vec<u8>, SnapshotError> {
    let mut length = [0; 4];
    from.read_exact(&mut length).map_err(failed("read"))?;
    let mut stated = [0; 4];
    from.read_exact(&mut stated).map_err(failed("read"))?;
    let bytes_len = u32::from_le_bytes(length) as usize;
    if bytes_len > RECORD_BYTES_MAX {
        return Err(SnapshotError::Damaged("a record is longer than any can be"));
    }
    let mut bytes = vec![0; bytes_len];
    from.read_exact(&mut bytes).map_err(failed("read"))?;
    if checksum(length, &bytes) != u32::from_le_bytes(stated) {
        return Err(SnapshotError::Damaged("a record fails its checksum"));
    }
    Ok(bytes)
}

/// Reads and checks a whole snapshot.
pub(super) fn read_contents(snapshot: &SnapshotFile) -> Result<Contents, SnapshotError> {
    let mut from = BufReader::new(FromStart {
        snapshot,
        offset: 0,
    });
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic).map_err(failed("read"))?;
    if &magic != MAGIC {
        return Err(SnapshotError::Damaged("it does not start like a snapshot"));
    }
    let head: rpc::RaftSnapshotHead = codec::decode("snapshot head", &read_record(&mut from)?)?;
    let cluster_id = codec::optional_cluster_id_in(&head.cluster_id)?;
    let count = head.records;
    let meta = meta_in(head)?;
    let mut records = Vec::new();
    for _ in 0..count {
        let bytes = read_record(&mut from)?;
        let record: rpc::RaftSnapshotRecord = codec::decode("snapshot record", &bytes)?;
        records.push((record.key, record.value));
    }
    if from.read(&mut [0]).map_err(failed("read"))? != 0 {
        return Err(SnapshotError::Damaged("there is more after its end"));
    }
    Ok(Contents {
        applied: meta.last_log_id,
        membership: meta.last_membership,
        cluster_id,
        records,
    })
}

/// A reader that leaves the file's own position alone: others may be reading it too.
struct FromStart<'a> {
    snapshot: &'a SnapshotFile,
    offset: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.snapshot.file.read_at(bytes, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
