//! `replica.json`: what a replica is. Replaced atomically, so it is always one of the states it
//! was given.

use ankole_proto::wire::body::LayerLink;
use ankole_proto::{Credential, Epoch, LayerId, ReplicaId, VolumeId, VolumeSize};
use serde::{Deserialize, Serialize};

use crate::layer::{Tree, TreeShapeError};

/// The file's name in the directory of the replica.
pub(crate) const FILE_NAME: &str = "replica.json";
/// The format that this code writes and reads.
pub(crate) const FORMAT: u32 = 1;
/// The longest file that is read: 255 layers take about 20 KiB.
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
}

/// The contents of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Descriptor {
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
    pub(crate) layers: Vec<StoredLayer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    format: u32,
    /// CRC32C of `replica` in its compact form.
    crc32c: u32,
    replica: Descriptor,
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
    #[error("format {0} is not supported (this version reads {FORMAT})")]
    Format(u32),
    #[error("it does not match its checksum")]
    Checksum,
    #[error("its credential is malformed")]
    Credential,
    #[error("its layers are wrong: {0}")]
    Tree(#[from] TreeShapeError),
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
            }],
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
        if format != FORMAT {
            return Err(DescriptorError::Format(format));
        }
        let envelope: Envelope = serde_json::from_slice(bytes)?;
        let descriptor = envelope.replica;
        if descriptor.checksum() != envelope.crc32c {
            return Err(DescriptorError::Checksum);
        }
        if descriptor.layers.iter().any(|layer| layer.id.raw() == 0) {
            return Err(DescriptorError::Tree(TreeShapeError::Orphan));
        }
        descriptor.credential()?;
        descriptor.tree()?;
        Ok(descriptor)
    }

    fn checksum(&self) -> u32 {
        crc32c::crc32c(&serde_json::to_vec(self).unwrap_or_default())
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

    /// Gives it this tree; layers keep their marks.
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
                }
            })
            .collect();
    }

    /// A layer's entry.
    pub(crate) fn layer_mut(&mut self, id: LayerId) -> Option<&mut StoredLayer> {
        self.layers.iter_mut().find(|layer| layer.id == id)
    }

    /// A layer's entry.
    pub(crate) fn layer(&self, id: LayerId) -> Option<&StoredLayer> {
        self.layers.iter().find(|layer| layer.id == id)
    }
}
