//! A log file that does not grow without end: at [`BYTES_MAX`] it becomes `log.1`, whose
//! predecessor is gone.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

/// The longest log file; two are kept.
const BYTES_MAX: u64 = 8 << 20;

/// Opens the log for appending, after setting a long one aside.
///
/// # Errors
///
/// What the system says.
pub fn start(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() >= BYTES_MAX) {
        let mut aside = OsString::from(path);
        aside.push(".1");
        fs::rename(path, aside)?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writes to a log that is set aside when it has become long. Clones share the file.
#[derive(Debug, Clone)]
pub struct BoundedLog {
    shared: Arc<Mutex<Current>>,
}

#[derive(Debug)]
struct Current {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl BoundedLog {
    /// A log at this path.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = start(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            shared: Arc::new(Mutex::new(Current {
                path: path.to_owned(),
                file,
                bytes,
            })),
        })
    }
}

impl Write for BoundedLog {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let mut current = self.shared.lock();
        if current.bytes >= BYTES_MAX {
            current.file = start(&current.path)?;
            current.bytes = current.file.metadata()?.len();
        }
        let written = current.file.write(buffer)?;
        current.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_two_files_of_bounded_length() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut log = BoundedLog::open(&path).unwrap();
        let line = vec![b'x'; 1 << 20];
        for _ in 0..30 {
            log.write_all(&line).unwrap();
        }
        let mut names: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["log", "log.1"]);
        for name in names {
            let bytes = fs::metadata(directory.path().join(name)).unwrap().len();
            assert!(bytes <= BYTES_MAX + line.len() as u64, "{bytes}");
        }
    }
}
