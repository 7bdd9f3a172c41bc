//! The contents of a volume, from one replica: all of it, or what can be read.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ankole_proto::wire::rebuild::ChunkBitmap;
use ankole_proto::{BLOCK_BYTES, BlockNumber, ChunkNumber, LayerId, VolumeSize};

use super::{StillLayer, map_trouble};
use crate::disk::{Disk, DiskFile};
use crate::layer::{BLOCK, BlockRun, MapRecord};
use crate::replica::descriptor::{Descriptor, StoredState};
use crate::replica::load::{LoadError, read_descriptor};

/// The most unreadable ranges that are listed; all are counted.
const RANGES_TOLD: usize = 100;

/// What to do about what cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDamage {
    /// Give up at the first.
    Refuse,
    /// Leave it out, and tell.
    Skip,
}

/// What to do about a replica that does not hold the whole volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnPartial {
    /// Give up.
    Refuse,
    /// Give what it holds, and tell.
    Take,
}

/// What is wanted of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportRequest {
    /// A sealed layer; `None`: the head.
    pub layer: Option<LayerId>,
    /// When a block, a map record or a file cannot be read.
    pub damage: OnDamage,
    /// When the replica is being rebuilt, or is faulted.
    pub partial: OnPartial,
}

/// What was handed on, and what was not.
#[derive(Debug, Clone)]
pub struct Exported {
    /// Of the volume then.
    pub size: VolumeSize,
    /// Of the replica: unless it is ready, what it holds is not all of the volume.
    pub state: StoredState,
    /// Blocks that do not match their sums, of layers in which an unclean stop may have left that
    /// behind: handed on as they are.
    pub unsettled_blocks: u64,
    /// What was not handed on, although a layer may hold it.
    pub unreadable: Unreadable,
    /// What is wrong with the layers' files as such.
    pub troubles: Vec<String>,
}

impl Exported {
    /// Whether it is all of the volume.
    pub fn is_whole(&self) -> bool {
        self.state == StoredState::Ready && self.unreadable.ranges == 0
    }
}

/// Blocks that cannot be read.
#[derive(Debug, Clone, Default)]
pub struct Unreadable {
    /// How many bytes.
    pub bytes: u64,
    /// In how many ranges.
    pub ranges: u64,
    /// The first 100 of them.
    pub told: Vec<UnreadableRange>,
    /// Where the last range of a layer ends, and its place among those that are told.
    last: BTreeMap<LayerId, (u64, Option<usize>)>,
}

/// Neighbouring blocks that cannot be read for the same layer's sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreadableRange {
    /// The newest layer that holds them, or may hold them.
    pub layer: LayerId,
    /// Where in the volume, bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

impl Unreadable {
    /// Blocks of a layer come in rising order.
    fn add(&mut self, layer: LayerId, block: BlockNumber) {
        let (offset, end) = (block.offset(), block.offset() + BLOCK_BYTES);
        self.bytes += BLOCK_BYTES;
        if let Some((last, place)) = self.last.get_mut(&layer)
            && *last == offset
        {
            *last = end;
            if let Some(range) = place.and_then(|place| self.told.get_mut(place)) {
                range.length += BLOCK_BYTES;
            }
            return;
        }
        self.ranges += 1;
        let place = self.told.len();
        let is_told = place < RANGES_TOLD;
        if is_told {
            self.told.push(UnreadableRange {
                layer,
                offset,
                length: BLOCK_BYTES,
            });
        }
        self.last.insert(layer, (end, is_told.then_some(place)));
    }
}

/// Why nothing, or not all, was handed on.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It cannot be told which layers there are.
    #[error("{0}; without it nothing of the replica can be exported")]
    Description(String),
    /// There is no such layer.
    #[error("the replica has no layer {0}: `inspect` lists those it has")]
    NoLayer(LayerId),
    /// The replica is being made equal to a peer.
    #[error(
        "the replica is being rebuilt and does not hold the whole volume: export another one, or \
         give --incomplete to have what it holds"
    )]
    Rebuilding,
    /// The replica failed.
    #[error(
        "the replica is faulted ({reason}) and may lack what was acknowledged: export another one, \
         or give --incomplete to have what it holds"
    )]
    Faulted {
        /// What happened.
        reason: String,
    },
    /// A file, a map record or a block cannot be read.
    #[error(
        "{what}: export another replica, or give --skip-damaged to have everything else and a list \
         of what cannot be read"
    )]
    Damaged {
        /// Which, and what is wrong.
        what: String,
    },
    /// The taker failed.
    #[error("cannot write what was read: {0}")]
    Write(#[source] io::Error),
}

impl From<LoadError> for ExportError {
    fn from(error: LoadError) -> Self {
        // Its advice is for a replica that has peers.
        Self::Description(match error {
            LoadError::BadFile { file, reason } | LoadError::Foreign { file, reason } => {
                format!("{file}: {reason}")
            }
            LoadError::Io { file, source } => format!("{file}: {source}"),
            LoadError::Faulted { reason } => reason,
        })
    }
}

/// Hands the volume's contents, as the head or a sealed layer has them, to `write`: the blocks that
/// hold data, each verified. What is not handed on reads as zeros. The volume's size then.
///
/// # Errors
///
/// [`ExportError`], for anything that is not whole.
pub fn export<D: Disk>(
    disk: &D,
    directory: &Path,
    layer: Option<LayerId>,
    write: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<VolumeSize, ExportError> {
    let request = ExportRequest {
        layer,
        damage: OnDamage::Refuse,
        partial: OnPartial::Refuse,
    };
    Ok(salvage(disk, directory, &request, write)?.size)
}

/// The same as far as the request goes: what it lets be left out is told.
///
/// A block that cannot be read, or of which a damaged map leaves open whether a layer holds it, is
/// left out, whatever older layers have there: older data is never taken for it.
///
/// # Errors
///
/// [`ExportError`].
pub fn salvage<D: Disk>(
    disk: &D,
    directory: &Path,
    request: &ExportRequest,
    write: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<Exported, ExportError> {
    let descriptor = read_descriptor(disk, directory)?;
    if request.partial == OnPartial::Refuse {
        match &descriptor.state {
            StoredState::Ready => {}
            StoredState::Rebuilding => return Err(ExportError::Rebuilding),
            StoredState::Faulted { reason } => {
                let reason = reason.clone();
                return Err(ExportError::Faulted { reason });
            }
        }
    }
    let chain = chain(&descriptor, request.layer)?;
    let open = |layer| StillLayer::open(disk, directory, &descriptor, layer);
    let layers: Vec<_> = chain.into_iter().map(open).collect();
    let troubles: Vec<String> = layers
        .iter()
        .flat_map(|layer| layer.troubles.iter().chain(&layer.doubt).cloned())
        .collect();
    if let (OnDamage::Refuse, Some(first)) = (request.damage, troubles.first()) {
        let what = first.clone();
        return Err(ExportError::Damaged { what });
    }
    let size = layers.first().map_or(descriptor.size, |top| top.size);
    let mut export = Export {
        directory,
        damage: request.damage,
        write,
        exported: Exported {
            size,
            state: descriptor.state,
            unsettled_blocks: 0,
            unreadable: Unreadable::default(),
            troubles,
        },
        sums: Vec::new(),
    };
    for chunk in (0..size.chunks()).map(ChunkNumber::from_raw) {
        export.chunk(&layers, chunk)?;
    }
    Ok(export.exported)
}

/// The layer that is wanted and all below it.
fn chain(descriptor: &Descriptor, layer: Option<LayerId>) -> Result<Vec<LayerId>, ExportError> {
    let tree = descriptor
        .tree()
        .map_err(|error| ExportError::Description(error.to_string()))?;
    let top = layer.unwrap_or(descriptor.head);
    if !tree.contains(top) {
        return Err(ExportError::NoLayer(top));
    }
    Ok(tree.chain_from(top))
}

/// An export under way.
struct Export<'a, W> {
    directory: &'a Path,
    damage: OnDamage,
    write: W,
    exported: Exported,
    /// Reused between reads.
    sums: Vec<u8>,
}

impl<W: FnMut(u64, &[u8]) -> io::Result<()>> Export<'_, W> {
    /// One chunk, looked up from the newest layer down.
    fn chunk<F: DiskFile>(
        &mut self,
        layers: &[StillLayer<F>],
        chunk: ChunkNumber,
    ) -> Result<(), ExportError> {
        let mut open: Vec<BlockNumber> = chunk.extent_in(self.exported.size).blocks().collect();
        for layer in layers {
            let (record, trouble) = match layer.record(chunk) {
                // Of what it does not hold by its map it may hold newer data.
                Ok(mut record) if layer.is_map_stale => {
                    record.zero = ChunkBitmap::default();
                    (record, Some(layer.troubles.join("; ")))
                }
                Ok(record) => (record, None),
                Err(error) => {
                    let trouble = map_trouble(self.directory, layer.layer, chunk, &error);
                    (MapRecord::default(), Some(trouble))
                }
            };
            let here = open.extract_if(.., |block| record.decides(block.in_chunk()));
            for block in here.filter(|block| record.present.contains(block.in_chunk())) {
                self.block(layer, block)?;
            }
            if let Some(what) = trouble {
                // Beyond its size the layer decides nothing, whatever its map says.
                let within = |block: &mut BlockNumber| block.raw() < layer.size.blocks();
                for block in open.extract_if(.., within) {
                    self.lose(layer.layer, block, &what)?;
                }
            }
        }
        Ok(())
    }

    /// One block that the layer holds.
    fn block<F: DiskFile>(
        &mut self,
        layer: &StillLayer<F>,
        block: BlockNumber,
    ) -> Result<(), ExportError> {
        let mut data = [0; BLOCK];
        let what = match self.read(layer, block, &mut data) {
            Ok(Matches::Yes) => None,
            Ok(Matches::No) if layer.lenient => {
                self.exported.unsettled_blocks += 1;
                None
            }
            Ok(Matches::No) => Some("it does not match its checksum".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        let Some(what) = what else {
            return (self.write)(block.offset(), &data).map_err(ExportError::Write);
        };
        let (directory, number) = (self.directory.display(), block.raw());
        let what = format!(
            "{directory}: block {number} of layer {}: {what}",
            layer.layer
        );
        self.lose(layer.layer, block, &what)
    }

    /// Takes note of a block that cannot be read, or gives up because of it.
    fn lose(&mut self, layer: LayerId, block: BlockNumber, what: &str) -> Result<(), ExportError> {
        match self.damage {
            OnDamage::Refuse => {
                let what = what.to_owned();
                Err(ExportError::Damaged { what })
            }
            OnDamage::Skip => {
                self.exported.unreadable.add(layer, block);
                Ok(())
            }
        }
    }

    fn read<F: DiskFile>(
        &mut self,
        layer: &StillLayer<F>,
        block: BlockNumber,
        data: &mut [u8],
    ) -> io::Result<Matches> {
        let Some(files) = &layer.files else {
            return Err(io::Error::other("a file of the layer cannot be opened"));
        };
        let run = BlockRun {
            first: block,
            count: 1,
        };
        let mut matches = Matches::Yes;
        files.read_run(run, data, &mut self.sums, |_, _| {
            matches = Matches::No;
            Ok::<_, io::Error>(())
        })?;
        Ok(matches)
    }
}

/// Whether a block is what its sum says.
enum Matches {
    Yes,
    No,
}
