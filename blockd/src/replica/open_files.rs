//! The open files of a replica: the head's always, a bounded number of sealed layers'.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;

use ankole_proto::LayerId;
use ankole_proto::wire::body::SEALED_LAYERS_MAX;

use crate::disk::Disk;
use crate::layer::{LayerFiles, Lengths};

/// The most sealed layers with open files, three each (INV-12): all that a replica can have, so that
/// a read costs the same however long the chain. The daemon raises the process's limit for it.
const OPEN_SEALED_MAX: usize = SEALED_LAYERS_MAX;
/// "Too many open files", of the process and of the system.
const TOO_MANY_FILES: [i32; 2] = [24, 23];

/// The files of a replica's layers.
pub(super) struct OpenFiles<D: Disk> {
    directory: PathBuf,
    lengths: Lengths,
    head: LayerFiles<D::File>,
    sealed: BTreeMap<LayerId, LayerFiles<D::File>>,
    opened: VecDeque<LayerId>,
}

impl<D: Disk> OpenFiles<D> {
    pub(super) const fn new(
        directory: PathBuf,
        lengths: Lengths,
        head: LayerFiles<D::File>,
    ) -> Self {
        Self {
            directory,
            lengths,
            head,
            sealed: BTreeMap::new(),
            opened: VecDeque::new(),
        }
    }

    /// The head's.
    pub(super) const fn head(&self) -> &LayerFiles<D::File> {
        &self.head
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
        let opened = LayerFiles::open(disk, &self.directory, layer, self.lengths);
        let too_many = |code| TOO_MANY_FILES.contains(&code);
        let opened = match opened {
            Err((_, error)) if error.raw_os_error().is_some_and(too_many) => {
                self.sealed.clear();
                self.opened.clear();
                LayerFiles::open(disk, &self.directory, layer, self.lengths)
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
        }
        self.opened.push_back(files.layer);
        self.sealed.insert(files.layer, files);
    }

    /// Puts other files in the head's place; the old head's are sealed from now on.
    pub(super) fn replace_head(&mut self, head: LayerFiles<D::File>) {
        self.close(head.layer);
        let old = std::mem::replace(&mut self.head, head);
        if old.layer != self.head.layer {
            self.keep(old);
        }
    }

    /// Closes a sealed layer's.
    pub(super) fn close(&mut self, layer: LayerId) {
        self.opened.retain(|opened| *opened != layer);
        self.sealed.remove(&layer);
    }
}
