//! A folder for one run.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::interrupt::{self, Undo};

/// A folder that is removed with its contents when this is dropped or the program is told to end,
/// unless it is kept.
pub struct Scratch {
    path: PathBuf,
    /// Unset when it is kept.
    undo: Option<Undo>,
}

impl Scratch {
    /// A new folder on a real disk: a temporary file system in memory would make syncs free.
    pub fn new(purpose: &str) -> anyhow::Result<Self> {
        let path = Path::new("/var/tmp").join(format!("ankole-{purpose}-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        let removed = path.clone();
        let undo = interrupt::undo_with(move || drop(std::fs::remove_dir_all(removed)));
        Ok(Self {
            path,
            undo: Some(undo),
        })
    }

    /// A folder that exists, or is to, and stays.
    pub fn kept(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        let path = std::path::absolute(path)?;
        Ok(Self { path, undo: None })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leave it, for someone to look at.
    pub fn keep(&mut self) {
        self.undo = None;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.undo.take().is_some() {
            // Nothing more can be done about a folder that will not go.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
