use std::io;
use std::path::PathBuf;

/// A read or a write of the store that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The medium failed, or what is stored is damaged.
    #[error("the store cannot {act}: {source}")]
    Failed {
        /// What was tried.
        act: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Refused: the value is too large for the store.
    #[error("the value of key {key:02x?} has {bytes} bytes, more than the store takes")]
    ValueTooLarge {
        /// Its key.
        key: Vec<u8>,
        /// Its length.
        bytes: usize,
    },
}

/// A store that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("{} is in use by another process: stop that manager first", .path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A file or directory could not be read, written or synced.
    #[error("cannot {act} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The store is damaged beyond repair and has been moved aside. A manager that has forgotten
    /// its votes must not vote again, so it can only come back under another id.
    #[error(
        "the store was damaged and has been moved to {}: {reason}. Remove this manager from the \
         group and add it again under a new id and with a new directory",
        .moved_to.display()
    )]
    Lost {
        /// Where its files are now.
        moved_to: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn io(
        act: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { act, path, source }
    }
}
