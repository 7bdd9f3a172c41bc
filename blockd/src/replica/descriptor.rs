//! `replica.json`: what a replica is. Replaced atomically, so it is always one of the states it
//! was given.

use ankole_proto::wire::body::LayerLink;
use ankole_proto::wire::cursor::RebuildCursor;
use ankole_proto::{ChunkNumber, Credential, Epoch, LayerId, ReplicaId, VolumeId, VolumeSize};
use serde::{Deserialize, Serialize};

use crate::layer::{Tree, TreeShapeError};

/// The file's name in the directory of the replica.
pub(crate) const FILE_NAME: &str = "replica.json";
/// The format that this code writes. It reads those before too.
pub(crate) const FORMAT: u32 = 3;
/// No layer has [`StoredLayer::mapped`].
const FORMAT_WITHOUT_MAPPED: u32 = 2;
/// Every layer is as large as the volume.
const FORMAT_OF_ONE_SIZE: u32 = 1;
/// The longest file that is read: 255 layers take about 40 KiB.
pub(crate) const BYTES_MAX: usize = 1 << 20;

/// Whether the replica was complete when the file was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredState {
    /// Complete.
    Ready,
    /// Being made equal to a peer.
    Rebuilding,
    /// Failed for good.
    Faulted {
        /// What happened.
        reason: String,
    },
}

/// How the last engine left the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// It closed in order, or there was none: all is synced and nothing in flight.
    Clean,
    /// It has (or had) the replica open.
    Unclean,
}

/// The volume's secret as 64 hexadecimal digits. Never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct StoredCredential(String);

impl std::fmt::Debug for StoredCredential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoredCredential(…)")
    }
}

/// How many blocks the map of a layer decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mapped {
    /// Of how many the layer holds the data.
    pub(crate) present: u64,
    /// For how many the layers below do not count.
    pub(crate) zero: u64,
}

/// A layer of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredLayer {
    pub(crate) id: LayerId,
    pub(crate) parent: Option<LayerId>,
    /// To be merged away.
    pub(crate) removing: bool,
    /// Blocks may lack their sums: an unclean stop left them behind (head only).
    pub(crate) unsettled: bool,
    /// Of the volume when the layer was the head: how long its files are.
    pub(crate) size: VolumeSize,
    /// What its map says as long as nothing changes it: a record that has become zeros would else
    /// count as one that was never written, and older data show through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mapped: Option<Mapped>,
}

/// A layer as format 1 has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredLayer1 {
    id: LayerId,
    parent: Option<LayerId>,
    removing: bool,
    unsettled: bool,
}

/// What a rebuild has made equal and durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredCursor {
    source: ReplicaId,
    equal: Vec<LayerId>,
    /// A layer that is equal below this chunk.
    part: Option<(LayerId, u64)>,
}

impl StoredCursor {
    /// As it is stored; nothing is not.
    pub(crate) fn of(cursor: &RebuildCursor) -> Option<Self> {
        (!cursor.is_nothing()).then(|| Self {
            source: cursor.source,
            equal: cursor.equal.clone(),
            part: cursor.part.map(|(layer, chunk)| (layer, chunk.raw())),
        })
    }

    /// As it is told.
    pub(crate) fn told(&self) -> RebuildCursor {
        RebuildCursor {
            source: self.source,
            equal: self.equal.clone(),
            part: self
                .part
                .map(|(layer, chunk)| (layer, ChunkNumber::from_raw(chunk))),
        }
    }
}

/// The contents of the file.
pub(crate) type Descriptor = Described<StoredLayer>;

/// The contents of the file, with the layers as its format has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Described<L> {
    pub(crate) replica: ReplicaId,
    pub(crate) volume: VolumeId,
    pub(crate) size: VolumeSize,
    credential: StoredCredential,
    pub(crate) epoch: Epoch,
    pub(crate) stop: Stop,
    /// Boot of the host in which an engine last opened the replica; empty when it is not known.
    pub(crate) boot: String,
    pub(crate) state: StoredState,
    pub(crate) head: LayerId,
    /// A parent before its children.
    pub(crate) layers: Vec<L>,
    /// While it is being rebuilt: how far that is. Not there otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rebuilt: Option<StoredCursor>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<L> {
    format: u32,
    /// CRC32C of `replica` in its compact form.
    crc32c: u32,
    replica: Described<L>,
}

#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

/// Bytes that are no `replica.json`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DescriptorError {
    #[error("it is not a replica's description: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("format {0} is not supported (this version reads 1 to {FORMAT})")]
    Format(u32),
    #[error("it does not match its checksum")]
    Checksum,
    #[error("its credential is malformed")]
    Credential,
    #[error("its layers are wrong: {0}")]
    Tree(#[from] TreeShapeError),
    #[error("a layer is larger than what stands on it, or the head is not as large as the volume")]
    Sizes,
}

impl<L: Serialize> Described<L> {
    fn checksum(&self) -> u32 {
        ankole_proto::crc32c(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// Reads the file as one of its formats.
fn read<L>(bytes: &[u8]) -> Result<Described<L>, DescriptorError>
where
    L: Serialize + for<'de> Deserialize<'de>,
{
    let envelope: Envelope<L> = serde_json::from_slice(bytes)?;
    if envelope.replica.checksum() != envelope.crc32c {
        return Err(DescriptorError::Checksum);
    }
    Ok(envelope.replica)
}

impl From<Described<StoredLayer1>> for Descriptor {
    fn from(old: Described<StoredLayer1>) -> Self {
        let size = old.size;
        let layers = old.layers.into_iter().map(|layer| StoredLayer {
            id: layer.id,
            parent: layer.parent,
            removing: layer.removing,
            unsettled: layer.unsettled,
            size,
            mapped: None,
        });
        Self {
            layers: layers.collect(),
            replica: old.replica,
            volume: old.volume,
            size,
            credential: old.credential,
            epoch: old.epoch,
            stop: old.stop,
            boot: old.boot,
            state: old.state,
            head: old.head,
            rebuilt: old.rebuilt,
        }
    }
}

impl Descriptor {
    /// Of a new replica.
    pub(crate) fn new(spec: &super::ReplicaSpec) -> Self {
        Self {
            replica: spec.replica,
            volume: spec.volume,
            size: spec.size,
            credential: StoredCredential(
                spec.credential
                    .as_bytes()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect(),
            ),
            epoch: Epoch::ZERO,
            stop: Stop::Clean,
            boot: String::new(),
            state: StoredState::Ready,
            head: spec.base_layer,
            layers: vec![StoredLayer {
                id: spec.base_layer,
                parent: None,
                removing: false,
                unsettled: false,
                size: spec.size,
                mapped: None,
            }],
            rebuilt: None,
        }
    }

    /// The bytes on the disk.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let envelope = Envelope {
            format: FORMAT,
            crc32c: self.checksum(),
            replica: self.clone(),
        };
        let mut bytes = serde_json::to_vec_pretty(&envelope).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// Reads the file. Trusts nothing.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DescriptorError> {
        let AnyFormat { format } = serde_json::from_slice(bytes)?;
        let descriptor: Self = match format {
            FORMAT | FORMAT_WITHOUT_MAPPED => read::<StoredLayer>(bytes)?,
            FORMAT_OF_ONE_SIZE => read::<StoredLayer1>(bytes)?.into(),
            other => return Err(DescriptorError::Format(other)),
        };
        if descriptor.layers.iter().any(|layer| layer.id.raw() == 0) {
            return Err(DescriptorError::Tree(TreeShapeError::Orphan));
        }
        descriptor.credential()?;
        descriptor.tree()?;
        descriptor.check_sizes()?;
        Ok(descriptor)
    }

    /// A volume only grows, and a layer has the size that it had when the layer was the head.
    pub(crate) fn check_sizes(&self) -> Result<(), DescriptorError> {
        let size_of = |id| self.layer(id).map(|layer| layer.size);
        let fits = |layer: &StoredLayer| match layer.parent {
            Some(parent) => size_of(parent).is_some_and(|below| below <= layer.size),
            None => true,
        };
        let all_fit = self.layers.iter().all(fits);
        let largest = self.layers.iter().map(|layer| layer.size).max();
        if all_fit && size_of(self.head) == Some(self.size) && largest == Some(self.size) {
            Ok(())
        } else {
            Err(DescriptorError::Sizes)
        }
    }

    /// Notes what the maps say that nothing changes until the next description: those of sealed layers
    /// without a merge, and the head's when nobody has it open. `mapped` knows each layer's.
    pub(crate) fn set_mapped(&mut self, mapped: impl Fn(LayerId) -> Option<Mapped>) {
        let settled: Vec<bool> = self
            .layers
            .iter()
            .map(|layer| self.is_map_settled(layer))
            .collect();
        for (layer, settled) in self.layers.iter_mut().zip(settled) {
            layer.mapped = settled.then(|| mapped(layer.id)).flatten();
        }
    }

    fn is_map_settled(&self, layer: &StoredLayer) -> bool {
        let is_open = layer.id == self.head && self.stop == Stop::Unclean;
        self.state == StoredState::Ready && !is_open && !layer.removing && !self.is_target(layer)
    }

    /// Whether a layer may be merged into this one.
    fn is_target(&self, layer: &StoredLayer) -> bool {
        let siblings = self
            .layers
            .iter()
            .filter(|other| other.parent == layer.parent);
        let below = layer.parent.and_then(|parent| self.layer(parent));
        below.is_some_and(|below| below.removing) && siblings.count() == 1
    }

    /// Whether the head may hold what is not durable, or not marked: an engine had it open, or a layer
    /// was being merged into it, which goes on when no engine has.
    pub(crate) fn is_head_in_doubt(&self) -> bool {
        self.stop == Stop::Unclean
            || self
                .layer(self.head)
                .is_some_and(|head| self.is_target(head))
    }

    /// What is wrong with the map of a layer that says this.
    pub(crate) fn check_mapped(&self, layer: LayerId, found: Mapped) -> Result<(), String> {
        let wanted = self.layer(layer).and_then(|layer| layer.mapped);
        match wanted.filter(|wanted| *wanted != found) {
            None => Ok(()),
            Some(wanted) => Err(format!(
                "records are missing or old: it holds {} blocks and hides {}, and should hold {} and \
                 hide {}",
                found.present, found.zero, wanted.present, wanted.zero
            )),
        }
    }

    /// How large a layer is; one that is not listed: as the volume.
    pub(crate) fn size_of(&self, layer: LayerId) -> VolumeSize {
        self.layer(layer).map_or(self.size, |layer| layer.size)
    }

    /// The secret.
    pub(crate) fn credential(&self) -> Result<Credential, DescriptorError> {
        let digits = self.credential.0.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(DescriptorError::Credential);
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let text = std::str::from_utf8(pair).map_err(|_| DescriptorError::Credential)?;
            *byte = u8::from_str_radix(text, 16).map_err(|_| DescriptorError::Credential)?;
        }
        Ok(Credential::from_bytes(bytes))
    }

    /// The tree of layers.
    pub(crate) fn tree(&self) -> Result<Tree, TreeShapeError> {
        let links: Vec<LayerLink> = self
            .layers
            .iter()
            .map(|layer| LayerLink {
                layer: layer.id,
                parent: layer.parent,
            })
            .collect();
        Tree::from_links(&links, self.head)
    }

    /// Gives it this tree; layers keep their marks and sizes, new ones are as large as the volume.
    pub(crate) fn set_tree(&mut self, tree: &Tree) {
        let old = std::mem::take(&mut self.layers);
        self.head = tree.head();
        self.layers = tree
            .links()
            .into_iter()
            .map(|link| {
                let known = old.iter().find(|layer| layer.id == link.layer);
                StoredLayer {
                    id: link.layer,
                    parent: link.parent,
                    removing: known.is_some_and(|layer| layer.removing) && link.layer != self.head,
                    unsettled: known.is_some_and(|layer| layer.unsettled),
                    size: known.map_or(self.size, |layer| layer.size),
                    mapped: None,
                }
            })
            .collect();
    }

    /// A layer's entry.
    pub(crate) fn layer_mut(&mut self, id: LayerId) -> Option<&mut StoredLayer> {
        self.layers.iter_mut().find(|layer| layer.id == id)
    }

    /// The layers that are to be merged away, a parent before its children.
    pub(crate) fn removing(&self) -> Vec<LayerId> {
        let removing = self.layers.iter().filter(|layer| layer.removing);
        removing.map(|layer| layer.id).collect()
    }

    /// A layer's entry.
    pub(crate) fn layer(&self, id: LayerId) -> Option<&StoredLayer> {
        self.layers.iter().find(|layer| layer.id == id)
    }
}
