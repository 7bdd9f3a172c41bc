//! A plain file, written and read as the store's volume is.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::BytesMut;
use rustix::fs::{Advice, fadvise};

use crate::chain::Chain;
use crate::store::{BLOCK, aligned_block};

/// The other side of a comparison.
#[derive(Debug)]
pub(crate) struct Plain {
    file: File,
    buffer: BytesMut,
}

impl Plain {
    /// A new file of holes.
    pub(crate) fn create(path: &Path, bytes: u64) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        file.set_len(bytes)?;
        Ok(Self {
            file,
            buffer: aligned_block(),
        })
    }

    /// Writes all of it, a block at a time, in the order in which a chain's layers were written.
    pub(crate) fn fill_as(&mut self, chain: Chain) -> anyhow::Result<()> {
        for (_, block) in chain.writes() {
            self.write(block)?;
        }
        self.flush()
    }

    /// Writes all of it.
    pub(crate) fn fill(&self, bytes: u64) -> anyhow::Result<()> {
        let mebibyte = vec![0x5a; 1 << 20];
        for at in (0..bytes).step_by(mebibyte.len()) {
            self.file.write_all_at(&mebibyte, at)?;
        }
        self.flush()
    }

    pub(crate) fn read(&mut self, block: u64) -> anyhow::Result<()> {
        Ok(self
            .file
            .read_exact_at(&mut self.buffer, block * BLOCK as u64)?)
    }

    pub(crate) fn write(&mut self, block: u64) -> anyhow::Result<()> {
        Ok(self.file.write_all_at(&self.buffer, block * BLOCK as u64)?)
    }

    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        Ok(self.file.sync_data()?)
    }

    /// Lets go of what the page cache has of it.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        Ok(fadvise(&self.file, 0, None, Advice::DontNeed)?)
    }

    pub(crate) fn read_piece(&self, buffer: &mut [u8], offset: u64) -> anyhow::Result<()> {
        Ok(self.file.read_exact_at(buffer, offset)?)
    }

    pub(crate) fn write_piece(&self, data: &[u8], offset: u64) -> anyhow::Result<()> {
        Ok(self.file.write_all_at(data, offset)?)
    }
}

/// The blocks of a volume spread over plain files as a chain spreads them over its layers: what the
/// layout costs without the store.
#[derive(Debug)]
pub(crate) struct Spread {
    chain: Chain,
    files: Vec<Plain>,
    buffer: BytesMut,
}

impl Spread {
    /// A file for each layer and for the head.
    pub(crate) fn create(folder: &Path, chain: Chain) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        for number in 0..=chain.sealed {
            files.push(Plain::create(
                &folder.join(number.to_string()),
                chain.bytes,
            )?);
        }
        for (layer, block) in chain.writes() {
            let file = usize::try_from(layer).ok().and_then(|n| files.get_mut(n));
            file.map_or(Ok(()), |file| file.write(block))?;
        }
        files.iter().try_for_each(Plain::flush)?;
        Ok(Self {
            chain,
            files,
            buffer: aligned_block(),
        })
    }

    pub(crate) fn read(&mut self, block: u64) -> anyhow::Result<()> {
        let file = usize::try_from(self.chain.owner(block))
            .ok()
            .and_then(|number| self.files.get(number));
        file.map_or(Ok(()), |file| {
            file.read_piece(&mut self.buffer, block * BLOCK as u64)
        })
    }
}

/// Plain files, each with what was written since the one before, and a description of which there are:
/// what a snapshot is without the store.
#[derive(Debug)]
pub(crate) struct Versions {
    folder: PathBuf,
    bytes: u64,
    begun: usize,
    newest: Plain,
}

impl Versions {
    /// The first file, in a new folder.
    pub(crate) fn create(folder: &Path, bytes: u64) -> anyhow::Result<Self> {
        std::fs::create_dir(folder)?;
        Ok(Self {
            newest: Plain::create(&folder.join("0"), bytes)?,
            folder: folder.to_owned(),
            bytes,
            begun: 1,
        })
    }

    /// The file that is written to.
    pub(crate) const fn newest(&mut self) -> &mut Plain {
        &mut self.newest
    }

    /// Syncs the newest file and begins another one, durably: the file and its name, then a description
    /// with a line for each, replaced whole.
    pub(crate) fn begin_next(&mut self) -> anyhow::Result<()> {
        self.newest.flush()?;
        let next = Plain::create(&self.folder.join(self.begun.to_string()), self.bytes)?;
        next.flush()?;
        let folder = File::open(&self.folder)?;
        folder.sync_all()?;
        self.begun += 1;
        let lines: String = (0..self.begun).map(|n| format!("file {n}\n")).collect();
        let (aside, description) = (self.folder.join("new"), self.folder.join("description"));
        let file = File::create(&aside)?;
        file.write_all_at(lines.as_bytes(), 0)?;
        file.sync_all()?;
        std::fs::rename(aside, description)?;
        folder.sync_all()?;
        self.newest = next;
        Ok(())
    }

    pub(crate) fn remove(self) -> anyhow::Result<()> {
        drop(self.newest);
        Ok(std::fs::remove_dir_all(self.folder)?)
    }
}

/// Lets go of what the page cache has of the files in a folder whose names end so.
pub(crate) fn forget(folder: &Path, end: &str) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(end) {
            let file = File::open(path)?;
            file.sync_data()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}
