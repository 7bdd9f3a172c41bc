//! A plain file, written and read as the store's volume is.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::BytesMut;
use rustix::fs::{Advice, fadvise};

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
    pub(crate) fn fill_as_chain(&mut self, bytes: u64, sealed: u64) -> anyhow::Result<()> {
        for (_, block) in crate::chain::writes(bytes, sealed) {
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
    files: Vec<Plain>,
    buffer: BytesMut,
}

impl Spread {
    /// Files as of a chain with so many sealed layers.
    pub(crate) fn create(folder: &Path, bytes: u64, sealed: u64) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        for number in 0..=sealed {
            files.push(Plain::create(&folder.join(number.to_string()), bytes)?);
        }
        for (layer, block) in crate::chain::writes(bytes, sealed) {
            let file = usize::try_from(layer).ok().and_then(|n| files.get_mut(n));
            file.map_or(Ok(()), |file| file.write(block))?;
        }
        files.iter().try_for_each(Plain::flush)?;
        Ok(Self {
            files,
            buffer: aligned_block(),
        })
    }

    pub(crate) fn read(&mut self, block: u64) -> anyhow::Result<()> {
        let owner = crate::chain::owner(block, self.files.len() as u64);
        let file = usize::try_from(owner)
            .ok()
            .and_then(|number| self.files.get(number));
        file.map_or(Ok(()), |file| {
            file.read_piece(&mut self.buffer, block * BLOCK as u64)
        })
    }
}
