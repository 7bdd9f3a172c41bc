//! `<disk>/ankole/disk.json`: what a disk is called and whose it is.
//!
//! ```text
//! { "format": 2, "crc32c": n,
//!   "marker": { "disk": "<32 hex digits>", "cluster": "<32 hex digits>" or null } }
//! ```
//!
//! `crc32c` covers `marker` in its compact form. Format 1 had no checksum:
//!
//! ```text
//! { "format": 1, "disk": "<32 hex digits>", "cluster": "<32 hex digits>" or null }
//! ```
//!
//! It is read, too, and replaced when the disk is next used. That is also how a lost marker is
//! written by hand.
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
/// The format that this version writes. It reads the one before too.
const FORMAT: u32 = 2;
/// There is no checksum.
const FORMAT_WITHOUT_SUM: u32 = 1;
/// Far more than the file ever holds: what is longer is not read.
const FILE_BYTES_MAX: usize = 4096;

/// What a disk says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marker {
    /// The disk.
    pub disk: DiskId,
    /// The cluster that its replicas belong to; `None` before the first orders.
    pub cluster: Option<ClusterId>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    format: u32,
    /// CRC32C of `marker` in its compact form.
    crc32c: u32,
    marker: Marker,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithoutSum {
    #[serde(rename = "format")]
    _format: u32,
    disk: DiskId,
    cluster: Option<ClusterId>,
}

#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

/// How a marker was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Current,
    Old,
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
        "{path} cannot be read: {reason}. Restore the file from a copy, or write \
         {{\"format\":1,\"disk\":\"ID\",\"cluster\":null}} there with the id that `ankole node get` \
         shows for this disk; never delete it while there are replicas"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A newer version has written it.
    #[error(
        "{path} has format {found}, this version reads 1 to {FORMAT}: use the newer ankole-blockd"
    )]
    Format {
        /// Which file.
        path: PathBuf,
        /// The format it states.
        found: u32,
    },
    /// The disk was used before, and has no marker.
    #[error(
        "{path} is missing although {replicas} is there: restore the file from a copy, or write \
         {{\"format\":1,\"disk\":\"ID\",\"cluster\":null}} there with the id that `ankole node get` \
         shows for this disk; to start with an empty disk move that directory away"
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
    fn read(disk: &LocalDisk) -> Result<Option<(Self, Form)>, MarkerError> {
        let path = disk.root().join(FILE_NAME);
        match disk.read_file(Path::new(FILE_NAME), FILE_BYTES_MAX) {
            Ok(text) => decode(&path, &text).map(Some),
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
        decode(path, text).map(|(marker, _)| marker)
    }

    fn checksum(&self) -> u32 {
        ankole_proto::crc32c(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads the marker, or writes one with a new disk id on a disk that was never used: before there
    /// is a directory of replicas.
    ///
    /// # Errors
    ///
    /// [`MarkerError`].
    pub(super) fn read_or_create(disk: &LocalDisk) -> Result<Self, MarkerError> {
        if let Some((marker, form)) = Self::read(disk)? {
            if form == Form::Old
                && let Err(error) = marker.write(disk)
            {
                // It is as good as before.
                tracing::warn!("cannot give the file a checksum: {error}");
            }
            return Ok(marker);
        }
        let path = disk.root().join(FILE_NAME);
        let replicas = disk.root().join(super::REPLICAS);
        match disk.list(Path::new(super::REPLICAS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(_) => return Err(MarkerError::Missing { path, replicas }),
            Err(source) => {
                let path = replicas;
                return Err(MarkerError::Io { path, source });
            }
        }
        let marker = Self {
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
        let envelope = Envelope {
            format: FORMAT,
            crc32c: self.checksum(),
            marker: *self,
        };
        let mut text = serde_json::to_vec_pretty(&envelope).map_err(|error| io(error.into()))?;
        text.push(b'\n');
        disk.replace_file(Path::new(FILE_NAME), &text).map_err(io)
    }
}

fn decode(path: &Path, text: &[u8]) -> Result<(Marker, Form), MarkerError> {
    let damaged = |reason: String| MarkerError::Damaged {
        path: path.to_path_buf(),
        reason,
    };
    let syntax = |error: serde_json::Error| damaged(error.to_string());
    let AnyFormat { format } = serde_json::from_slice(text).map_err(syntax)?;
    match format {
        FORMAT => {
            let envelope: Envelope = serde_json::from_slice(text).map_err(syntax)?;
            if envelope.marker.checksum() != envelope.crc32c {
                return Err(damaged("it does not match its checksum".to_owned()));
            }
            Ok((envelope.marker, Form::Current))
        }
        FORMAT_WITHOUT_SUM => {
            let WithoutSum { disk, cluster, .. } = serde_json::from_slice(text).map_err(syntax)?;
            Ok((Marker { disk, cluster }, Form::Old))
        }
        found => Err(MarkerError::Format {
            path: path.to_path_buf(),
            found,
        }),
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
        assert_eq!(
            Marker::read(&disk(&dir)).unwrap(),
            Some((marker, Form::Current))
        );
    }

    const MARKER: Marker = Marker {
        disk: DiskId::from_bits(0xabc),
        cluster: Some(ClusterId::from_bits(7)),
    };

    fn text(dir: &tempfile::TempDir) -> String {
        fs::read_to_string(dir.path().join(FILE_NAME)).unwrap()
    }

    #[test]
    fn the_newest_format_stays() {
        let dir = tempfile::tempdir().unwrap();
        MARKER.write(&disk(&dir)).unwrap();
        let lines = [
            "{",
            "  \"format\": 2,",
            "  \"crc32c\": 2855140225,",
            "  \"marker\": {",
            "    \"disk\": \"00000000000000000000000000000abc\",",
            "    \"cluster\": \"00000000000000000000000000000007\"",
            "  }",
            "}",
            "",
        ];
        assert_eq!(text(&dir), lines.join("\n"));
    }

    #[test]
    fn a_marker_without_checksum_is_read_and_gets_one() {
        for (cluster, stored) in [
            (None, "null"),
            (MARKER.cluster, "\"00000000000000000000000000000007\""),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let id = MARKER.disk;
            let old = format!(r#"{{"format":1,"disk":"{id}","cluster":{stored}}}"#);
            fs::write(dir.path().join(FILE_NAME), old).unwrap();
            fs::create_dir(dir.path().join("replicas")).unwrap();
            let found = Marker::read_or_create(&disk(&dir)).unwrap();
            assert_eq!((found.disk, found.cluster), (id, cluster));
            assert!(text(&dir).contains("\"format\": 2"));
            let again = Marker::read(&disk(&dir)).unwrap();
            assert_eq!(again, Some((found, Form::Current)));
        }
    }

    #[test]
    fn no_flipped_bit_gives_another_marker() {
        let dir = tempfile::tempdir().unwrap();
        MARKER.write(&disk(&dir)).unwrap();
        let path = dir.path().join(FILE_NAME);
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(found) = Marker::decode(&path, &bytes) {
                assert_eq!(found, MARKER, "bit {bit}");
            }
        }
    }

    #[test]
    fn a_marker_of_a_newer_format_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE_NAME), r#"{"format":3,"shelf":"x"}"#).unwrap();
        let error = Marker::read(&disk(&dir)).unwrap_err();
        assert!(
            matches!(error, MarkerError::Format { found: 3, .. }),
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
    fn a_lost_marker_is_not_drawn_anew_where_there_is_a_place_for_replicas() {
        for replicas in ["replicas/some", "replicas"] {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join(replicas)).unwrap();
            let error = Marker::read_or_create(&disk(&dir)).unwrap_err();
            assert!(matches!(error, MarkerError::Missing { .. }), "{error}");
            assert!(!dir.path().join(FILE_NAME).exists());
        }
    }
}
