//! A new replica that begins as a sealed layer of this one, on the same disk: the layers are shared
//! by hard links, so it takes an instant whatever they hold. A sealed layer never changes (INV-6);
//! whoever has to change its files makes them its own first (see `private`).

use std::io;
use std::path::Path;

use ankole_proto::{LayerId, VolumeSize};

use super::create::{aside_of, exists, exists_durably, parent_of, remove_tree};
use super::descriptor::{Descriptor, FILE_NAME, StoredLayer};
use super::fault::is_full;
use super::merge::Merge;
use super::refusal::{Medium, Unusable};
use super::{Replica, ReplicaSpec, State};
use crate::disk::{Disk, not_in_use};
use crate::layer::{LayerFiles, Lengths, Part, file_path};

/// What a replica that begins as another one is to be.
#[derive(Debug, Clone)]
pub struct CloneSpec {
    /// The new replica; its base layer is the empty head.
    pub replica: ReplicaSpec,
    /// The sealed layer of the source that the head stands on.
    pub layer: LayerId,
}

/// Why a replica was not cloned. Nothing was created.
#[derive(Debug, thiserror::Error)]
pub enum CloneError {
    /// A replica stands there already.
    #[error("there is a replica already")]
    Exists,
    /// The source is faulted.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// The source is not complete.
    #[error("the source is being rebuilt")]
    Rebuilding,
    /// The source has no such layer.
    #[error("the source has no layer {0}")]
    NoSuchLayer(LayerId),
    /// The layer is the source's head.
    #[error("layer {0} of the source is not sealed: clone a snapshot")]
    NotSealed(LayerId),
    /// The layer goes away.
    #[error("layer {0} of the source is being removed")]
    Removing(LayerId),
    /// An unclean stop left the layer's sums in doubt; the source sees to that by itself.
    #[error("the checksums of layer {0} are being made anew after an unclean stop: try again soon")]
    Unsettled(LayerId),
    /// A volume only grows.
    #[error("{wanted} bytes are less than the {least} of the layer")]
    Smaller {
        /// The size that was asked for.
        wanted: u64,
        /// The layer's.
        least: u64,
    },
    /// The new head has the id of a layer that is shared.
    #[error("layer {0} of the source cannot be the clone's head too")]
    HeadTaken(LayerId),
    /// The disk refused.
    #[error("linking or creating a file: {0}")]
    Io(#[from] io::Error),
    /// The source's files could not be made durable.
    #[error(transparent)]
    Medium(#[from] Medium),
}

impl CloneError {
    /// Whether the same call may succeed soon, without anybody doing anything.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unsettled(_) | Self::Medium(Medium::NoSpace) => true,
            Self::Io(error) => is_full(error),
            _ => false,
        }
    }
}

impl<D: Disk> Replica<D> {
    /// Creates the replica of `spec` in `directory` of the same disk, durably and at once: built
    /// beside it with the suffix `.creating`, and renamed.
    ///
    /// # Errors
    ///
    /// [`CloneError`]; this replica is as before.
    pub fn clone_into(&mut self, directory: &Path, spec: &CloneSpec) -> Result<(), CloneError> {
        self.check_sound()?;
        if self.state == State::Rebuilding {
            return Err(CloneError::Rebuilding);
        }
        let layers = self.shareable(spec)?;
        if exists_durably(&self.disk, directory)? {
            return Err(CloneError::Exists);
        }
        self.settle_for_sharing(&layers)?;
        let target = self.merge.as_ref().map(Merge::target);
        if layers.iter().any(|layer| Some(layer.id) == target) {
            // It begins again, and finds that the layer is shared now.
            self.merge = None;
        }
        let aside = aside_of(directory, ".creating");
        let made = self.link_into(&aside, spec, layers).and_then(|()| {
            self.disk.rename(&aside, directory)?;
            self.disk.sync_dir(parent_of(directory))
        });
        if made.is_err() && exists(&self.disk, &aside).unwrap_or(false) {
            // What stays is removed with the next creation, or when the disk is opened.
            let _left = remove_tree(&self.disk, &aside);
        }
        Ok(made?)
    }

    /// The layers that the clone shares, base first, as its description lists them.
    fn shareable(&self, spec: &CloneSpec) -> Result<Vec<StoredLayer>, CloneError> {
        let top = spec.layer;
        let Some(entry) = self.descriptor.layer(top) else {
            return Err(CloneError::NoSuchLayer(top));
        };
        if top == self.tree.head() {
            return Err(CloneError::NotSealed(top));
        }
        if entry.removing {
            return Err(CloneError::Removing(top));
        }
        let wanted: VolumeSize = spec.replica.size;
        if wanted < entry.size {
            return Err(CloneError::Smaller {
                wanted: wanted.bytes(),
                least: entry.size.bytes(),
            });
        }
        let mut layers = Vec::new();
        for id in self.tree.chain_from(top).into_iter().rev() {
            let entry = self
                .descriptor
                .layer(id)
                .ok_or(CloneError::NoSuchLayer(id))?;
            if entry.unsettled {
                return Err(CloneError::Unsettled(id));
            }
            if id == spec.replica.base_layer {
                return Err(CloneError::HeadTaken(id));
            }
            // What is merged away here may stay there: a merge would need its own copy.
            layers.push(StoredLayer {
                removing: false,
                ..entry.clone()
            });
        }
        Ok(layers)
    }

    /// Sealed layers are durable, but for those that a merge writes to.
    fn settle_for_sharing(&mut self, layers: &[StoredLayer]) -> Result<(), Medium> {
        let removing = self.descriptor.removing();
        for layer in layers {
            if layer
                .parent
                .is_some_and(|parent| removing.contains(&parent))
            {
                self.sync_sealed(layer.id)?;
            }
        }
        Ok(())
    }

    /// Builds the clone's directory, durable but for its own name.
    fn link_into(
        &self,
        aside: &Path,
        spec: &CloneSpec,
        mut layers: Vec<StoredLayer>,
    ) -> io::Result<()> {
        let disk = &self.disk;
        if exists(disk, aside)? {
            remove_tree(disk, aside)?;
        }
        let inside = aside.join("layers");
        disk.create_dir(aside)?;
        disk.create_dir(&inside)?;
        for layer in &layers {
            for part in Part::ALL {
                let from = file_path(&self.directory, layer.id, part);
                disk.hard_link(&from, &file_path(aside, layer.id, part))?;
            }
        }
        let head = &spec.replica;
        LayerFiles::create(disk, aside, head.base_layer, Lengths::of(head.size))?;
        disk.sync_dir(&inside)?;
        let mut descriptor = Descriptor::new(head);
        for layer in &mut descriptor.layers {
            layer.parent = Some(spec.layer);
        }
        layers.append(&mut descriptor.layers);
        descriptor.layers = layers;
        disk.replace_file(&aside.join(FILE_NAME), &descriptor.encode())
            .map_err(not_in_use)
    }
}
