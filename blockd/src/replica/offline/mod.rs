//! Looking at a store without a daemon. Nothing here writes.
//!
//! What is wrong with one file, record or block is told, and the rest is looked at: this is what
//! there is when a volume has no other copy left.

mod export;
mod inspect;
mod verify;

use std::path::Path;

use ankole_proto::{BLOCK_BYTES, ChunkNumber, LayerId, ReplicaId, VolumeSize};

use super::descriptor::{Descriptor, Mapped, Stop, StoredState};
use super::load::ScanError;
use super::recover::allocated_in;
use crate::disk::{Disk, DiskFile};
use crate::layer::{
    LayerFiles, Lengths, MapRecord, PLACES, Part, file_path, is_empty_from, read_record_of,
};

pub use export::{
    ExportError, ExportRequest, Exported, OnDamage, OnPartial, Unreadable, UnreadableRange, export,
    salvage,
};
pub use inspect::{InspectedLayer, Inspection, inspect};
pub use verify::{DamagedBlock, Verification, verify};

/// A layer of a store at rest, as far as its files can be opened.
struct StillLayer<F> {
    layer: LayerId,
    size: VolumeSize,
    /// It was being written when the daemon stopped.
    in_doubt: bool,
    /// Blocks may lack their sums: one that does not match is no damage.
    lenient: bool,
    /// Its map alone serves to tell what the layer holds.
    map: Option<F>,
    /// All three, to read it.
    files: Option<LayerFiles<F>>,
    /// How much of the image there is.
    image_bytes: u64,
    /// Records of its map are gone, or old ones: what it says of a block may be out of date.
    is_map_stale: bool,
    /// What is wrong with the files as such.
    troubles: Vec<String>,
    /// What cannot be told of the map for the sake of records that cannot be used.
    doubt: Option<String>,
}

/// What a map as a whole lacks, by what `replica.json` says of it.
enum Lacks {
    Nothing,
    /// It is known that records are gone or old.
    Records(String),
    /// So many records cannot be used, and may account for all that is not there.
    Unusable(u64),
}

impl<F: DiskFile> StillLayer<F> {
    fn open<D: Disk<File = F>>(
        disk: &D,
        directory: &Path,
        descriptor: &Descriptor,
        layer: LayerId,
    ) -> Self {
        let is_head = layer == descriptor.head;
        let unclean = descriptor.stop == Stop::Unclean;
        let rebuilt = unclean && descriptor.state == StoredState::Rebuilding;
        let in_doubt = rebuilt || is_head && descriptor.is_head_in_doubt();
        let unsettled = descriptor.layer(layer).is_some_and(|entry| entry.unsettled);
        let size = descriptor.size_of(layer);
        let (mut troubles, mut image_bytes) = (Vec::new(), 0);
        let mut open = |part| -> Option<F> {
            let path = file_path(directory, layer, part);
            let opened = disk.open(&path).and_then(|file| Ok((file.len()?, file)));
            let (bytes, file) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    troubles.push(format!("{}: {error}", path.display()));
                    return None;
                }
            };
            let wanted = Lengths::of(size).bytes(part);
            // It may be longer, when an expansion was cut short.
            let fits =
                bytes == wanted || bytes > wanted && is_empty_from(&file, wanted).unwrap_or(false);
            if !fits {
                let path = path.display();
                troubles.push(format!("{path}: {bytes} bytes long instead of {wanted}"));
            }
            if part == Part::Image {
                image_bytes = bytes;
            }
            Some(file)
        };
        let (image, map, sums) = (open(Part::Image), open(Part::Map), open(Part::Sums));
        let files = match (image, map.clone(), sums) {
            (Some(image), Some(map), Some(sums)) => Some(LayerFiles {
                layer,
                size,
                image,
                map,
                sums,
            }),
            _ => None,
        };
        let mut still = Self {
            layer,
            size,
            in_doubt,
            lenient: rebuilt || is_head && unclean || unsettled,
            map,
            files,
            image_bytes,
            is_map_stale: false,
            troubles,
            doubt: None,
        };
        let path = file_path(directory, layer, Part::Map);
        let path = path.display();
        match still.lacks(descriptor) {
            Lacks::Nothing => {}
            Lacks::Records(reason) => {
                still.is_map_stale = true;
                still.troubles.push(format!("{path}: {reason}"));
            }
            Lacks::Unusable(records) => {
                still.doubt = Some(format!(
                    "{path}: {records} records cannot be used; whether others have become zeros \
                     beside them, and let older data through, cannot be told"
                ));
            }
        }
        still
    }

    fn lacks(&self, descriptor: &Descriptor) -> Lacks {
        let wanted = descriptor.layer(self.layer).and_then(|entry| entry.mapped);
        let (Some(map), Some(wanted)) = (&self.map, wanted) else {
            return Lacks::Nothing;
        };
        let (mut found, mut unusable) = (Mapped::default(), 0);
        for chunk in self.chunks() {
            if let Ok(Ok(record)) = read_record_of(map, self.layer, chunk) {
                found.present += record.present.count() as u64;
                found.zero += record.zero.count() as u64;
            } else {
                unusable += 1;
            }
        }
        let blocks = unusable * PLACES as u64;
        let explained = |found, wanted| (found..=found + blocks).contains(&wanted);
        match descriptor.check_mapped(self.layer, found) {
            Err(_)
                if explained(found.present, wanted.present)
                    && explained(found.zero, wanted.zero) =>
            {
                Lacks::Unusable(unusable)
            }
            Err(reason) => Lacks::Records(reason),
            Ok(()) => Lacks::Nothing,
        }
    }

    /// The record as loading would make it; beyond the layer's size it is empty.
    fn record(&self, chunk: ChunkNumber) -> Result<MapRecord, ScanError> {
        if chunk.raw() >= self.size.chunks() {
            return Ok(MapRecord::default());
        }
        let Some(map) = &self.map else {
            return Err(std::io::Error::from(std::io::ErrorKind::NotFound).into());
        };
        let mut record = read_record_of(map, self.layer, chunk)?
            .map_err(|error| ScanError::Record(chunk, error))?;
        if let (true, Some(files)) = (self.in_doubt, &self.files)
            && !record.present.is_empty()
        {
            let allocated = allocated_in(files, chunk, self.size)?;
            for block in 0..PLACES {
                // What a file that was cut short lacks is no hole that a stop has left.
                let end = chunk.offset() + (block as u64 + 1) * BLOCK_BYTES;
                let written = allocated.contains(block) || end > self.image_bytes;
                record
                    .present
                    .set(block, record.present.contains(block) && written);
            }
        }
        Ok(record)
    }

    /// Its chunks.
    fn chunks(&self) -> impl Iterator<Item = ChunkNumber> + use<F> {
        (0..self.size.chunks()).map(ChunkNumber::from_raw)
    }
}

/// What is wrong at a chunk of a layer's map, with the file.
fn map_trouble(directory: &Path, layer: LayerId, chunk: ChunkNumber, error: &ScanError) -> String {
    let path = file_path(directory, layer, Part::Map);
    let (path, chunk) = (path.display(), chunk.raw());
    match error {
        ScanError::Io(error) => format!("{path}: at chunk {chunk}: {error}"),
        ScanError::Record(_, error) => format!("{path}: at chunk {chunk}: {error}"),
    }
}

/// What is wrong with the name of a replica's directory.
fn misnamed(directory: &Path, descriptor: &Descriptor) -> Option<String> {
    let name: ReplicaId = directory.file_name()?.to_str()?.parse().ok()?;
    (name != descriptor.replica).then(|| {
        format!(
            "the directory was renamed or copied: it holds replica {}, and no daemon loads it under \
             the name {name}",
            descriptor.replica
        )
    })
}

/// Counts a finding, and keeps it while there are fewer than `told_max`.
fn note(count: &mut u64, told: &mut Vec<String>, told_max: usize, finding: String) {
    *count += 1;
    if told.len() < told_max {
        told.push(finding);
    }
}
