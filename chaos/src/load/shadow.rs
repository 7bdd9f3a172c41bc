//! What was issued, acknowledged and flushed for each block, in memory and in a file.
//!
//! ```text
//! header  64 bytes: "ANKSHADO", u64 version 1, u64 seed, u64 block bytes, u64 offset, u64 blocks
//! block   24 bytes: u64 issued, u64 acknowledged, u64 flushed generation
//! ```
//!
//! Entries are written with pwrite as they change: the page cache keeps them over a `kill -9` of
//! this program. An issued generation is on record before its write is sent.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, bail};

const MAGIC: &[u8; 8] = b"ANKSHADO";
const HEADER_BYTES: u64 = 64;
const ENTRY_BYTES: u64 = 24;

/// What a block must hold after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Durable {
    /// Everything acknowledged: processes were killed, the host lived on.
    Acknowledged,
    /// Everything flushed: the power was cut.
    Flushed,
}

/// One block's generations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry {
    /// The last that was sent.
    pub issued: u64,
    /// The last that was answered.
    pub acknowledged: u64,
    /// The last that a completed flush covers.
    pub flushed: u64,
}

/// The shape of a run, which a later check needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Of the noise in the sectors.
    pub seed: u64,
    /// Bytes of one write.
    pub block_bytes: u64,
    /// Where on the unit block 0 lies.
    pub offset: u64,
    /// How many blocks.
    pub blocks: u64,
}

/// The memory of a run.
pub struct Shadow {
    shape: Shape,
    entries: Vec<Entry>,
    file: Option<File>,
}

impl Shadow {
    /// A memory that dies with the program.
    pub fn in_memory(shape: Shape) -> anyhow::Result<Self> {
        let blocks = usize::try_from(shape.blocks).context("too many blocks")?;
        Ok(Self {
            shape,
            entries: vec![Entry::default(); blocks],
            file: None,
        })
    }

    /// The memory in this file: a new one, or that of an earlier run of the same shape, which
    /// goes on.
    pub fn in_file(path: &Path, shape: Shape) -> anyhow::Result<Self> {
        let shadow = match Self::open(path) {
            Ok(shadow) => shadow,
            Err(error) if path.exists() => return Err(error),
            Err(_) => {
                let mut new = Self::in_memory(shape)?;
                new.create(path)?;
                new
            }
        };
        if shadow.shape != shape {
            bail!("{} is of another run: {:?}", path.display(), shadow.shape);
        }
        Ok(shadow)
    }

    fn create(&mut self, path: &Path) -> anyhow::Result<()> {
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        file.set_len(HEADER_BYTES + ENTRY_BYTES * self.shape.blocks)?;
        let mut header = Vec::from(MAGIC);
        let shape = self.shape;
        for field in [1, shape.seed, shape.block_bytes, shape.offset, shape.blocks] {
            header.extend_from_slice(&field.to_le_bytes());
        }
        file.write_all_at(&header, 0)?;
        self.file = Some(file);
        Ok(())
    }

    /// The memory that an earlier run left in this file.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let bytes = std::fs::read(path)?;
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|chunk| {
                chunk
                    .iter()
                    .rev()
                    .fold(0, |word, byte| word << 8 | u64::from(*byte))
            })
            .collect();
        let [
            magic,
            1,
            seed,
            block_bytes,
            offset,
            blocks,
            _,
            _,
            entries @ ..,
        ] = words.as_slice()
        else {
            bail!("{} is no shadow file of version 1", path.display());
        };
        if magic.to_le_bytes() != *MAGIC || entries.len() as u64 != 3 * blocks {
            bail!("{} is no whole shadow file", path.display());
        }
        let entries = entries
            .chunks_exact(3)
            .map(|entry| Entry {
                issued: entry[0],
                acknowledged: entry[1],
                flushed: entry[2],
            })
            .collect();
        let shape = Shape {
            seed: *seed,
            block_bytes: *block_bytes,
            offset: *offset,
            blocks: *blocks,
        };
        Ok(Self {
            shape,
            entries,
            file: Some(file),
        })
    }

    /// The run's shape.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What is known of a block.
    pub fn entry(&self, block: u64) -> Entry {
        usize::try_from(block)
            .ok()
            .and_then(|block| self.entries.get(block))
            .copied()
            .unwrap_or_default()
    }

    fn change(&mut self, block: u64, change: impl FnOnce(&mut Entry)) -> anyhow::Result<Entry> {
        let index = usize::try_from(block)?;
        let entry = self
            .entries
            .get_mut(index)
            .context("block beyond the shadow")?;
        change(entry);
        let entry = *entry;
        if let Some(file) = &self.file {
            let mut bytes = [0; 24];
            bytes[..8].copy_from_slice(&entry.issued.to_le_bytes());
            bytes[8..16].copy_from_slice(&entry.acknowledged.to_le_bytes());
            bytes[16..].copy_from_slice(&entry.flushed.to_le_bytes());
            file.write_all_at(&bytes, HEADER_BYTES + ENTRY_BYTES * block)?;
        }
        Ok(entry)
    }

    /// A write of the block is about to be sent: its generation.
    pub fn issue(&mut self, block: u64) -> anyhow::Result<u64> {
        Ok(self.change(block, |entry| entry.issued += 1)?.issued)
    }

    /// A write was answered.
    pub fn acknowledge(&mut self, block: u64, generation: u64) -> anyhow::Result<()> {
        self.change(block, |entry| {
            entry.acknowledged = entry.acknowledged.max(generation)
        })?;
        Ok(())
    }

    /// The acknowledged generations now: what a flush sent at this moment will cover.
    pub fn acknowledged(&self) -> Vec<u64> {
        self.entries
            .iter()
            .map(|entry| entry.acknowledged)
            .collect()
    }

    /// A flush that was sent when these were acknowledged has completed.
    pub fn flush(&mut self, covered: &[u64]) -> anyhow::Result<()> {
        for (block, generation) in (0..).zip(covered) {
            self.flush_block(block, *generation)?;
        }
        Ok(())
    }

    /// This generation of the block is durable.
    pub fn flush_block(&mut self, block: u64, generation: u64) -> anyhow::Result<()> {
        if self.entry(block).flushed < generation {
            self.change(block, |entry| entry.flushed = generation)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape {
        seed: 5,
        block_bytes: 4096,
        offset: 0,
        blocks: 3,
    };

    #[test]
    fn a_shadow_outlives_its_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shadow");
        let mut shadow = Shadow::in_file(&path, SHAPE).unwrap();
        assert_eq!(shadow.issue(1).unwrap(), 1);
        shadow.acknowledge(1, 1).unwrap();
        let covered = shadow.acknowledged();
        assert_eq!(shadow.issue(1).unwrap(), 2);
        shadow.flush(&covered).unwrap();
        drop(shadow);
        let again = Shadow::in_file(&path, SHAPE).unwrap();
        assert_eq!(
            again.entry(1),
            Entry {
                issued: 2,
                acknowledged: 1,
                flushed: 1
            }
        );
        assert_eq!(again.entry(0), Entry::default());
    }

    #[test]
    fn a_shadow_of_another_run_or_a_cut_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shadow");
        Shadow::in_file(&path, SHAPE).unwrap();
        assert!(Shadow::in_file(&path, Shape { seed: 6, ..SHAPE }).is_err());
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 8]).unwrap();
        assert!(Shadow::open(&path).is_err());
    }
}
