//! A disk in memory that forgets what was not synced.
//!
//! Files and directories have a present state and a durable one. [`SimDisk::crash`] makes the disk
//! that a machine would find after the power failed: for each page of a file any state since the
//! last sync of the file (none of the writes, all, some: pages reach the medium in any order), torn
//! between sectors if asked; for each directory any number of its first changes since its last
//! sync. A page that was a hole on the medium becomes whole or stays a hole, as on filesystems that
//! allocate when data is written. What a failed sync did not write is never made durable by a later
//! sync, as in the page cache of Linux; syncs by the same handle, or a clone of it, all fail then, as
//! those of [`super::LocalDisk`] do. A file whose last name is gone can be synced still. Every other
//! call to share blocks is refused as not supported, so that both ways are gone. Everything follows
//! from a seed: the same calls give the same disk.

mod directory;
mod fate;
mod file;
mod inject;

use std::io;
use std::path::{Component, Path};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Disk, Space, in_doubt};
use directory::Directories;
pub use fate::Fate;
use file::Files;
pub use file::SimFile;
use inject::Injector;
pub use inject::{CallKind, Fault};

pub(super) const PAGE_BYTES: u64 = 4096;

/// All that a disk holds.
#[derive(Debug, Clone)]
struct State {
    files: Files,
    directories: Directories,
    injector: Injector,
    capacity_bytes: u64,
    honesty: Honesty,
}

/// Whether a sync makes anything durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Honesty {
    Honest,
    DropsSynced,
}

/// A simulated disk. Clones mean the same disk.
#[derive(Debug, Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk of this capacity.
    pub fn new(capacity_bytes: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                files: Files::default(),
                directories: Directories::new(),
                injector: Injector::default(),
                capacity_bytes,
                honesty: Honesty::Honest,
            })),
        }
    }

    /// The disk that is found after the machine stopped now. This one is not changed; handles of
    /// its files do not reach the new one. Calls are counted anew, without faults.
    #[must_use]
    pub fn crash(&self, fate: Fate, seed: u64) -> Self {
        let state = self.state.lock();
        let mut dice = fate::Dice::new(fate, seed);
        Self {
            state: Arc::new(Mutex::new(State {
                files: state.files.after_crash(&mut dice),
                directories: state.directories.after_crash(&mut dice),
                injector: Injector::default(),
                capacity_bytes: state.capacity_bytes,
                honesty: state.honesty,
            })),
        }
    }

    /// The disk that another process finds after this one was killed now: what is not synced is still
    /// there, and still not synced. This one is not changed; handles of its files do not reach the new
    /// one. Calls are counted anew, without faults.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut state = self.state.lock().clone();
        state.injector = Injector::default();
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Calls made until now, of those that [`Self::fail`] counts.
    pub fn calls(&self) -> u64 {
        self.state.lock().injector.calls()
    }

    /// Lets the call with this number (counted from 0 over the disk's life) meet a fault.
    pub fn fail(&self, call: u64, fault: Fault) {
        self.state.lock().injector.fail(call, fault);
    }

    /// Forgets the faults that have not been met.
    pub fn mend(&self) {
        self.state.lock().injector.mend();
    }

    /// After [`Fault::Stop`]: it was the process that ended. Another one finds everything as it was
    /// left, synced or not.
    pub fn restart(&self) {
        self.state.lock().injector.restart();
    }

    /// Whether [`Fault::Stop`] was met.
    pub fn is_stopped(&self) -> bool {
        self.state.lock().injector.is_stopped()
    }

    /// Every call that met a fault, and which, in order.
    pub fn met(&self) -> Vec<(CallKind, Fault)> {
        self.state.lock().injector.met().to_vec()
    }

    /// Syncs of files and directories that [`Self::fail`] let fail.
    pub fn failed_syncs(&self) -> u64 {
        self.state.lock().injector.failed_syncs()
    }

    /// From now on syncs succeed without making anything durable: a broken disk, for tests that
    /// must notice it.
    pub fn drop_synced(&self) {
        self.state.lock().honesty = Honesty::DropsSynced;
    }

    /// Changes how much the disk holds.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// Flips one bit of a file, on the medium too.
    ///
    /// # Errors
    ///
    /// When there is no such file or byte.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let file = state.directories.file(&names(path)?)?;
        state.files.flip_bit(file, byte, bit)
    }

    /// The page around a byte of a file as a read would show it now, without being a call that can
    /// fail; `None` when there is no such byte.
    pub fn peek_page(&self, path: &Path, byte: u64) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let file = state.directories.file(&names(path).ok()?).ok()?;
        state.files.peek_page(file, byte)
    }

    /// Takes back a bit that was flipped, wherever the page that came of it is still the file's: now
    /// or on the medium.
    pub fn take_back_flip(&self, path: &Path, byte: u64, bit: u8, flipped: &[u8]) {
        let mut state = self.state.lock();
        let file = names(path).and_then(|names| state.directories.file(&names));
        if let Ok(file) = file {
            state.files.take_back_flip(file, byte, bit, flipped);
        }
    }

    fn with<T>(
        &self,
        kind: CallKind,
        act: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.state.lock();
        state.injector.admit(kind)?;
        act(&mut state)
    }
}

impl State {
    /// Space comes back when the last name is durably gone.
    fn forget_unnamed(&mut self) {
        let named = self.directories.named_files();
        self.files.keep_only(&named);
    }

    fn free_bytes(&self) -> u64 {
        self.capacity_bytes
            .saturating_sub(self.files.pages() * PAGE_BYTES)
    }
}

/// The parts of a relative path.
fn names(path: &Path) -> io::Result<Vec<String>> {
    path.components()
        .map(|part| match part {
            Component::Normal(name) => name
                .to_str()
                .map(str::to_owned)
                .ok_or_else(|| io::ErrorKind::InvalidInput.into()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        })
        .collect()
}

impl Disk for SimDisk {
    type File = SimFile;

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let file = self.with(CallKind::Look, |state| {
            state.directories.file(&names(path)?)
        })?;
        Ok(SimFile::new(self.clone(), file))
    }

    fn create(&self, path: &Path) -> io::Result<SimFile> {
        let file = self.with(CallKind::Change, |state| {
            let names = names(path)?;
            match state.directories.file(&names) {
                Ok(file) => {
                    state.files.set_len(file, 0)?;
                    Ok(file)
                }
                Err(_) => {
                    let file = state.files.create();
                    state.directories.link(&names, file)?;
                    Ok(file)
                }
            }
        })?;
        Ok(SimFile::new(self.clone(), file))
    }

    fn read_file(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        self.with(CallKind::Look, |state| {
            let file = state.directories.file(&names(path)?)?;
            let bytes = usize::try_from(state.files.len(file)?).unwrap_or(usize::MAX);
            if bytes > bytes_max {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut out = vec![0; bytes];
            state.files.read(file, &mut out, 0)?;
            Ok(out)
        })
    }

    fn replace_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        use super::DiskFile;
        let aside = path.with_extension("new");
        let written = self.create(&aside).and_then(|file| {
            file.write_at(&[io::IoSlice::new(bytes)], 0)?;
            file.sync()
        });
        if written.is_err() {
            let _gone = self.remove_file(&aside);
        }
        written?;
        self.rename(&aside, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new("")))
            .map_err(in_doubt)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(CallKind::Change, |state| {
            state.directories.rename(&names(from)?, &names(to)?)
        })
    }

    fn hard_link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        self.with(CallKind::Change, |state| {
            let file = state.directories.file(&names(existing)?)?;
            state.directories.link(&names(new)?, file)
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.with(CallKind::Change, |state| {
            state.directories.remove_file(&names(path)?)?;
            state.forget_unnamed();
            Ok(())
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.with(CallKind::Change, |state| {
            state.directories.remove_dir(&names(path)?)
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.with(CallKind::Change, |state| {
            state.directories.create_dir(&names(path)?)
        })
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.with(CallKind::Look, |state| {
            state.directories.list(&names(path)?)
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.with(CallKind::Sync, |state| {
            if state.honesty == Honesty::Honest {
                state.directories.sync(&names(path)?)?;
                state.forget_unnamed();
            }
            Ok(())
        })
    }

    fn space(&self) -> io::Result<Space> {
        self.with(CallKind::Look, |state| {
            Ok(Space {
                capacity_bytes: state.capacity_bytes,
                free_bytes: state.free_bytes(),
            })
        })
    }
}
