//! The open files of a replica: the head's always, a bounded number of sealed layers'.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;

use ankole_proto::wire::body::SEALED_LAYERS_MAX;
use ankole_proto::{LayerId, VolumeSize};

use crate::disk::Disk;
use crate::layer::{LayerFiles, Lengths};

/// The most sealed layers with open files, three each (INV-12): all that a replica can have, so that
/// a read costs the same however long the chain. The daemon raises the process's limit for it.
const OPEN_SEALED_MAX: usize = SEALED_LAYERS_MAX;
/// "Too many open files", of the process and of the system.
const TOO_MANY_FILES: [i32; 2] = [24, 23];
/// Slots of the index, [`super::index::HOLE`] among them.
const SLOTS: usize = 256;

/// The files of a replica's layers.
pub(super) struct OpenFiles<D: Disk> {
    directory: PathBuf,
    /// How large each layer is; those that are not listed are not in the tree.
    sizes: BTreeMap<LayerId, VolumeSize>,
    head: LayerFiles<D::File>,
    sealed: BTreeMap<LayerId, LayerFiles<D::File>>,
    opened: VecDeque<LayerId>,
    /// The same files once more, by the slots of their layers: what a read looks up.
    slots: Vec<Option<LayerFiles<D::File>>>,
}

impl<D: Disk> OpenFiles<D> {
    pub(super) fn new(
        directory: PathBuf,
        sizes: BTreeMap<LayerId, VolumeSize>,
        head: LayerFiles<D::File>,
    ) -> Self {
        Self {
            directory,
            sizes,
            head,
            sealed: BTreeMap::new(),
            opened: VecDeque::new(),
            slots: std::iter::repeat_with(|| None).take(SLOTS).collect(),
        }
    }

    /// The head's.
    pub(super) const fn head(&self) -> &LayerFiles<D::File> {
        &self.head
    }

    /// Makes the head's files as long as a volume's of this size, durably. It says afterwards that
    /// it is that large, also when this failed half-way.
    pub(super) fn grow_head(&mut self, size: VolumeSize) -> io::Result<()> {
        self.sizes.insert(self.head.layer, size);
        self.forget_slot(self.head.layer);
        self.head.grow(Lengths::of(size))
    }

    /// The files of the layer in a slot, opened when they are not.
    pub(super) fn in_slot(
        &mut self,
        disk: &D,
        slot: u8,
        layer: LayerId,
    ) -> io::Result<&LayerFiles<D::File>> {
        let place = usize::from(slot);
        if self.slots.get(place).is_none_or(Option::is_none) {
            let files = self.of(disk, layer)?.clone();
            if let Some(slot) = self.slots.get_mut(place) {
                *slot = Some(files);
            }
        }
        self.slots
            .get(place)
            .and_then(Option::as_ref)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The files in a slot, if they are open.
    pub(super) fn opened_in_slot(&self, slot: u8) -> Option<&LayerFiles<D::File>> {
        self.slots.get(usize::from(slot))?.as_ref()
    }

    /// A layer's, opened when they are not.
    pub(super) fn of(&mut self, disk: &D, layer: LayerId) -> io::Result<&LayerFiles<D::File>> {
        if layer == self.head.layer {
            return Ok(&self.head);
        }
        if !self.sealed.contains_key(&layer) {
            let files = self.open(disk, layer)?;
            self.keep(files);
        }
        self.sealed
            .get(&layer)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Opens a sealed layer's files; when the process has too many, those of the others are closed
    /// first.
    fn open(&mut self, disk: &D, layer: LayerId) -> io::Result<LayerFiles<D::File>> {
        let Some(size) = self.sizes.get(&layer) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let lengths = Lengths::of(*size);
        let opened = LayerFiles::open(disk, &self.directory, layer, lengths);
        let too_many = |code| TOO_MANY_FILES.contains(&code);
        let opened = match opened {
            Err((_, error)) if error.raw_os_error().is_some_and(too_many) => {
                self.sealed.clear();
                self.opened.clear();
                self.slots.fill_with(|| None);
                LayerFiles::open(disk, &self.directory, layer, lengths)
            }
            opened => opened,
        };
        opened.map_err(|(_, error)| error)
    }

    /// Takes open files of a sealed layer, and closes the oldest when there are too many.
    pub(super) fn keep(&mut self, files: LayerFiles<D::File>) {
        if self.opened.len() >= OPEN_SEALED_MAX
            && let Some(oldest) = self.opened.pop_front()
        {
            self.sealed.remove(&oldest);
            self.forget_slot(oldest);
        }
        self.opened.push_back(files.layer);
        self.sealed.insert(files.layer, files);
    }

    /// Takes a layer into account that has just been created.
    pub(super) fn add(&mut self, layer: LayerId, size: VolumeSize) {
        self.sizes.insert(layer, size);
    }

    /// Puts other files in the head's place; the old head's are sealed from now on.
    pub(super) fn replace_head(&mut self, head: LayerFiles<D::File>) {
        self.close(head.layer);
        self.sizes.insert(head.layer, head.size);
        let old = std::mem::replace(&mut self.head, head);
        self.forget_slot(old.layer);
        if old.layer != self.head.layer {
            self.keep(old);
        }
    }

    /// Closes a sealed layer's.
    pub(super) fn close(&mut self, layer: LayerId) {
        self.opened.retain(|opened| *opened != layer);
        self.sealed.remove(&layer);
        self.forget_slot(layer);
    }

    /// Closes the files of a layer that is not in the tree any more.
    pub(super) fn remove(&mut self, layer: LayerId) {
        self.close(layer);
        self.sizes.remove(&layer);
    }

    fn forget_slot(&mut self, layer: LayerId) {
        for slot in &mut self.slots {
            if slot.as_ref().is_some_and(|files| files.layer == layer) {
                *slot = None;
            }
        }
    }
}
