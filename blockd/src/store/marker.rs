//! `<disk>/ankole/disk.json`: what a disk is called and whose it is.
//!
//! ```text
//! { "format": 1, "disk": "<32 hex digits>", "cluster": "<32 hex digits>" or null }
//! ```
//!
//! The disk id is drawn once, when the directory is first used. The cluster id is added with the
//! first orders and never changes: a disk that was moved to another cluster is refused there
//! rather than emptied.

use std::io;
use std::path::{Path, PathBuf};

use ankole_proto::{ClusterId, DiskId};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, LocalDisk};

const FILE_NAME: &str = "disk.json";
/// The format that this version writes, and the only one there has been.
const FORMAT: u32 = 1;
/// Far more than the file ever holds: what is longer is not read.
const FILE_BYTES_MAX: usize = 4096;

/// What a disk says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    format: u32,
    /// The disk.
    pub disk: DiskId,
    /// The cluster that its replicas belong to; `None` before the first orders.
    pub cluster: Option<ClusterId>,
}

/// Why a disk's marker could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MarkerError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file does not say what it should.
    #[error(
        "{path} cannot be read: {reason}. If the replicas beside it are known to belong here, \
         restore the file from a copy; never delete it while there are replicas"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A newer version has written it.
    #[error("{path} has format {found}, this version reads {FORMAT}: use the newer ankole-blockd")]
    Format {
        /// Which file.
        path: PathBuf,
        /// The format it states.
        found: u32,
    },
    /// There are replicas but no marker.
    #[error(
        "{path} is missing although {replicas} holds replicas: restore the file, or move the \
         replicas away to start with an empty disk"
    )]
    Missing {
        /// Which file.
        path: PathBuf,
        /// Where the replicas are.
        replicas: PathBuf,
    },
}

impl Marker {
    /// Reads the marker of a disk; `None` when there is none.
    ///
    /// # Errors
    ///
    /// [`MarkerError`].
    pub(super) fn read(disk: &LocalDisk) -> Result<Option<Self>, MarkerError> {
        let path = disk.root().join(FILE_NAME);
        match disk.read_file(Path::new(FILE_NAME), FILE_BYTES_MAX) {
            Ok(text) => Self::decode(&path, &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(MarkerError::Io { path, source }),
        }
    }

    /// Reads the contents of a marker's file. Trusts nothing; `path` is for the message.
    ///
    /// # Errors
    ///
    /// [`MarkerError`].
    pub fn decode(path: &Path, text: &[u8]) -> Result<Self, MarkerError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let damaged = |error: serde_json::Error| MarkerError::Damaged {
            path: path.to_path_buf(),
            reason: error.to_string(),
        };
        let Format { format } = serde_json::from_slice(text).map_err(damaged)?;
        if format != FORMAT {
            return Err(MarkerError::Format {
                path: path.to_path_buf(),
                found: format,
            });
        }
        serde_json::from_slice(text).map_err(damaged)
    }

    /// Reads the marker, or writes one with a new disk id where there are no replicas.
    ///
    /// # Errors
    ///
    /// [`MarkerError`].
    pub(super) fn read_or_create(disk: &LocalDisk) -> Result<Self, MarkerError> {
        if let Some(marker) = Self::read(disk)? {
            return Ok(marker);
        }
        let holds_replicas = disk
            .list(Path::new(super::REPLICAS))
            .is_ok_and(|names| !names.is_empty());
        if holds_replicas {
            return Err(MarkerError::Missing {
                path: disk.root().join(FILE_NAME),
                replicas: disk.root().join(super::REPLICAS),
            });
        }
        let marker = Self {
            format: FORMAT,
            disk: DiskId::random(),
            cluster: None,
        };
        marker.write(disk)?;
        Ok(marker)
    }

    /// Replaces the file, durably: a crash leaves the old one or the new one.
    ///
    /// # Errors
    ///
    /// [`MarkerError::Io`].
    pub(super) fn write(&self, disk: &LocalDisk) -> Result<(), MarkerError> {
        let io = |source| MarkerError::Io {
            path: disk.root().join(FILE_NAME),
            source,
        };
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| io(error.into()))?;
        text.push(b'\n');
        disk.replace_file(Path::new(FILE_NAME), &text).map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn disk(dir: &tempfile::TempDir) -> LocalDisk {
        LocalDisk::open(dir.path()).unwrap()
    }

    #[test]
    fn a_disk_keeps_its_id_and_learns_its_cluster_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut marker = Marker::read_or_create(&disk(&dir)).unwrap();
        assert_eq!(Marker::read_or_create(&disk(&dir)).unwrap(), marker);
        marker.cluster = Some(ClusterId::from_bits(7));
        marker.write(&disk(&dir)).unwrap();
        assert_eq!(Marker::read(&disk(&dir)).unwrap(), Some(marker));
    }

    #[test]
    fn a_marker_of_a_newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), r#"{"format":2,"shelf":"x"}"#).unwrap();
        let error = Marker::read(&disk(&dir)).unwrap_err();
        assert!(
            matches!(error, MarkerError::Format { found: 2, .. }),
            "{error}"
        );
    }

    #[test]
    fn damage_is_told_with_the_file_and_the_remedy() {
        for text in [
            "",
            "{",
            r#"{"format":1}"#,
            r#"{"format":1,"disk":"x","cluster":null}"#,
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE_NAME), text).unwrap();
            let error = Marker::read(&disk(&dir)).unwrap_err();
            assert!(matches!(error, MarkerError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("disk.json"));
        }
    }

    #[test]
    fn a_lost_marker_beside_replicas_is_not_drawn_anew() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("replicas/some")).unwrap();
        let error = Marker::read_or_create(&disk(&dir)).unwrap_err();
        assert!(matches!(error, MarkerError::Missing { .. }), "{error}");
    }
}
