//! What an unclean stop may have left in a layer that was being written, made sound again.

use ankole_proto::geometry::CHUNK_BLOCKS;
use ankole_proto::wire::rebuild::ChunkBitmap;
use ankole_proto::{BLOCK_BYTES, ChunkNumber, VolumeSize};

use super::load::ScanError;
use crate::disk::{DiskFile, in_doubt};
use crate::layer::{LayerFiles, PLACES};

/// Compares the map with the image's holes. A block marked present that is a hole was never
/// written and counts as absent; a place that holds data and is not marked is punched, so that
/// what is written there later never shows what was there before.
pub(super) fn recover_layer<F: DiskFile>(files: &LayerFiles<F>) -> Result<(), ScanError> {
    let size = files.size;
    files.each_record(ScanError::Record, |chunk, mut record| {
        let allocated = allocated_in(files, chunk, size)?;
        let before = record;
        for block in 0..PLACES {
            if !allocated.contains(block) {
                record.present.set(block, false);
            }
        }
        if record != before {
            files.write_record(chunk, &record)?;
        }
        Ok::<_, ScanError>(())
    })?;
    // Also what the process before has written: only when it is durable that a place does not count
    // may what is there go.
    files.map.sync().map_err(in_doubt)?;
    punch_unmarked(files)
}

/// Punches every place that holds data and is not marked, durably: also holes that the process before
/// has punched and nobody has synced. The map must be durable.
pub(super) fn punch_unmarked<F: DiskFile>(files: &LayerFiles<F>) -> Result<(), ScanError> {
    let size = files.size;
    let mut at = 0;
    while let Some(data) = files.image.next_data(at)? {
        let chunk = ChunkNumber::at(data.start);
        let record = files
            .read_record(chunk)?
            .map_err(|error| ScanError::Record(chunk, error))?;
        let allocated = allocated_in(files, chunk, size)?;
        for block in 0..PLACES {
            if allocated.contains(block) && !record.present.contains(block) {
                let start = chunk.offset() + block as u64 * BLOCK_BYTES;
                files.image.punch_hole(start..start + BLOCK_BYTES)?;
            }
        }
        at = chunk.extent_in(size).end();
        if at >= size.bytes() {
            break;
        }
    }
    Ok(files.image.sync().map_err(in_doubt)?)
}

/// The blocks of a chunk whose place in the image is not a hole.
pub(super) fn allocated_in<F: DiskFile>(
    files: &LayerFiles<F>,
    chunk: ChunkNumber,
    size: VolumeSize,
) -> std::io::Result<ChunkBitmap> {
    let extent = chunk.extent_in(size);
    let mut allocated = ChunkBitmap::default();
    let mut at = extent.offset();
    while at < extent.end() {
        let Some(data) = files.image.next_data(at)? else {
            break;
        };
        let (start, end) = (data.start.max(at), data.end.min(extent.end()));
        for block in (start / BLOCK_BYTES)..end.div_ceil(BLOCK_BYTES) {
            allocated.set((block % CHUNK_BLOCKS) as usize, true);
        }
        at = data.end.max(at + 1);
    }
    Ok(allocated)
}
