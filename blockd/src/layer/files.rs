//! The three files of a layer.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use ankole_proto::{BLOCK_BYTES, ChunkNumber, LayerId, VolumeSize};

use super::BLOCK;
use super::record::{MapRecord, RECORD_BYTES, RecordError};
use crate::disk::{Disk, DiskFile, in_doubt, read_exact_at};

/// How much of a map is read at once when a replica is loaded: 256 chunks.
const MAP_READ_BYTES: u64 = 64 << 10;

/// One of the files of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `.img`
    Image,
    /// `.map`
    Map,
    /// `.sum`
    Sums,
}

impl Part {
    /// All, in the order in which they are written.
    pub const ALL: [Self; 3] = [Self::Image, Self::Sums, Self::Map];

    /// The end of the file's name.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Image => "img",
            Self::Map => "map",
            Self::Sums => "sum",
        }
    }
}

/// Where a file of a layer stands, below the directory of the replica.
pub fn file_path(directory: &Path, layer: LayerId, part: Part) -> PathBuf {
    directory
        .join("layers")
        .join(format!("{layer}.{}", part.extension()))
}

/// How long the files of a volume's layers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lengths {
    size: VolumeSize,
}

impl Lengths {
    /// Of the layers of a volume of this size.
    pub const fn of(size: VolumeSize) -> Self {
        Self { size }
    }

    /// Of one file, in bytes.
    pub const fn bytes(self, part: Part) -> u64 {
        match part {
            Part::Image => self.size.bytes(),
            Part::Map => self.size.chunks() * RECORD_BYTES as u64,
            Part::Sums => self.size.blocks() * 4,
        }
    }
}

/// The open files of one layer.
#[derive(Debug, Clone)]
pub struct LayerFiles<F> {
    /// Whose.
    pub layer: LayerId,
    /// How many blocks it can hold; a volume that has grown since has more.
    pub size: VolumeSize,
    /// Block data, each block at its volume offset.
    pub image: F,
    /// One record for each chunk.
    pub map: F,
    /// CRC32C of each present block, at four times its number.
    pub sums: F,
}

/// Reads a chunk's record from the map of a layer.
///
/// # Errors
///
/// What the system said, or that the bytes are no record of this layer and chunk.
pub fn read_record_of<F: DiskFile>(
    map: &F,
    layer: LayerId,
    chunk: ChunkNumber,
) -> io::Result<Result<MapRecord, RecordError>> {
    let mut bytes = [0; RECORD_BYTES];
    read_exact_at(map, &mut bytes, chunk.raw() * RECORD_BYTES as u64)?;
    Ok(MapRecord::decode(&bytes, layer, chunk))
}

/// Whether a file holds nothing from `start` on, which may lie within a page that holds something.
///
/// # Errors
///
/// What the system said.
pub fn is_empty_from<F: DiskFile>(file: &F, start: u64) -> io::Result<bool> {
    let page_end = start.next_multiple_of(BLOCK_BYTES);
    let mut rest = [0; BLOCK];
    let rest = rest
        .get_mut(..usize::try_from(page_end - start).unwrap_or(BLOCK))
        .unwrap_or_default();
    file.read_at(rest, start)?;
    Ok(rest.iter().all(|byte| *byte == 0) && file.next_data(page_end)?.is_none())
}

impl<F: DiskFile> LayerFiles<F> {
    /// Creates the files of an empty layer; durable once the directory has been synced. What an
    /// attempt has left goes first: a sync of it may have failed, and is not tried again (INV-10).
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn create<D: Disk<File = F>>(
        disk: &D,
        directory: &Path,
        layer: LayerId,
        lengths: Lengths,
    ) -> io::Result<Self> {
        let create = |part| -> io::Result<F> {
            let path = file_path(directory, layer, part);
            match disk.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let file = disk.create(&path)?;
            file.set_len(lengths.bytes(part))?;
            file.sync()?;
            Ok(file)
        };
        Ok(Self {
            layer,
            size: lengths.size,
            image: create(Part::Image)?,
            map: create(Part::Map)?,
            sums: create(Part::Sums)?,
        })
    }

    /// Opens the files of a layer and checks their lengths.
    ///
    /// # Errors
    ///
    /// The file at fault, and `InvalidData` for a wrong length.
    pub fn open<D: Disk<File = F>>(
        disk: &D,
        directory: &Path,
        layer: LayerId,
        lengths: Lengths,
    ) -> Result<Self, (Part, io::Error)> {
        let open = |part| -> Result<F, (Part, io::Error)> {
            let check = || -> io::Result<F> {
                let file = disk.open(&file_path(directory, layer, part))?;
                let (found, wanted) = (file.len()?, lengths.bytes(part));
                if found == wanted {
                    return Ok(file);
                }
                let reason = format!("{found} bytes long instead of {wanted}");
                Err(io::Error::new(io::ErrorKind::InvalidData, reason))
            };
            check().map_err(|error| (part, error))
        };
        Ok(Self {
            layer,
            size: lengths.size,
            image: open(Part::Image)?,
            map: open(Part::Map)?,
            sums: open(Part::Sums)?,
        })
    }

    /// The file.
    pub const fn part(&self, part: Part) -> &F {
        match part {
            Part::Image => &self.image,
            Part::Map => &self.map,
            Part::Sums => &self.sums,
        }
    }

    /// Makes the files as long as a larger volume's, durably; what is new is a hole. Repeated after
    /// it was interrupted it goes on.
    ///
    /// # Errors
    ///
    /// What the system said; then some files may still be shorter.
    pub fn grow(&mut self, lengths: Lengths) -> io::Result<()> {
        self.size = lengths.size;
        for part in Part::ALL {
            let file = self.part(part);
            file.set_len(lengths.bytes(part))?;
            file.sync().map_err(in_doubt)?;
        }
        Ok(())
    }

    /// Opens the files of a layer, and cuts off what an interrupted [`Self::grow`] has added, unless
    /// another replica has the file too.
    ///
    /// # Errors
    ///
    /// The file at fault, and `InvalidData` for a wrong length: too short, or with data beyond.
    pub fn open_to_use<D: Disk<File = F>>(
        disk: &D,
        directory: &Path,
        layer: LayerId,
        lengths: Lengths,
    ) -> Result<Self, (Part, io::Error)> {
        match Self::open(disk, directory, layer, lengths) {
            Err((_, error)) if error.kind() == io::ErrorKind::InvalidData => {}
            opened => return opened,
        }
        for part in Part::ALL {
            let cut = || -> io::Result<()> {
                let file = disk.open(&file_path(directory, layer, part))?;
                let wanted = lengths.bytes(part);
                let is_longer = file.len()? > wanted && file.links()? == 1;
                if is_longer && is_empty_from(&file, wanted)? {
                    file.set_len(wanted)?;
                    file.sync().map_err(in_doubt)?;
                }
                Ok(())
            };
            cut().map_err(|error| (part, error))?;
        }
        Self::open(disk, directory, layer, lengths)
    }

    /// Reads the map record of a chunk; beyond the layer's size it is empty.
    ///
    /// # Errors
    ///
    /// What the system said, or that the record is damaged.
    pub fn read_record(&self, chunk: ChunkNumber) -> io::Result<Result<MapRecord, RecordError>> {
        if chunk.raw() >= self.size.chunks() {
            return Ok(Ok(MapRecord::default()));
        }
        read_record_of(&self.map, self.layer, chunk)
    }

    /// Writes the map record of a chunk.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn write_record(&self, chunk: ChunkNumber, record: &MapRecord) -> io::Result<()> {
        let bytes = record.encode(self.layer, chunk);
        let offset = chunk.raw() * RECORD_BYTES as u64;
        self.map.write_at(&[IoSlice::new(&bytes)], offset)
    }

    /// Hands every record that is not empty to `take`, in order, skipping what is a hole.
    ///
    /// # Errors
    ///
    /// What the system said; the first damaged record.
    pub fn each_record<E: From<io::Error>>(
        &self,
        damaged: impl Fn(ChunkNumber, RecordError) -> E,
        mut take: impl FnMut(ChunkNumber, MapRecord) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = self.map.len()?;
        let mut at = 0;
        let mut buffer = Vec::new();
        while let Some(data) = self.map.next_data(at)? {
            let record = RECORD_BYTES as u64;
            at = data.start - data.start % record;
            let stop = data.end.next_multiple_of(record).min(end);
            while at < stop {
                let bytes = (stop - at).min(MAP_READ_BYTES);
                buffer.resize(usize::try_from(bytes).unwrap_or_default(), 0);
                read_exact_at(&self.map, &mut buffer, at)?;
                for (index, bytes) in (0..).zip(buffer.chunks(RECORD_BYTES)) {
                    let chunk = ChunkNumber::from_raw(at / record + index);
                    let record = MapRecord::decode(bytes, self.layer, chunk)
                        .map_err(|error| damaged(chunk, error))?;
                    if !record.is_empty() {
                        take(chunk, record)?;
                    }
                }
                at += bytes;
            }
            if at >= end {
                break;
            }
        }
        Ok(())
    }
}
