//! Damage to the files of a store at rest, as an input tells it.

use std::path::PathBuf;

use super::specimen::Specimen;
use crate::disk::sim::SimDisk;
use crate::disk::{Disk, DiskFile};
use crate::layer::{Part, file_path};

/// A command: file, kind and bit, and where (4 bytes).
pub const COMMAND_BYTES: usize = 6;
/// A CRC32C finds every three flipped bits in a block.
const FLIPS_MAX: usize = 3;
const LENGTHEN_BYTES_MAX: u64 = 1 << 20;
const PARTS: [Part; 3] = [Part::Image, Part::Map, Part::Sums];

/// What was damaged, where that decides what can be noticed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Damaged {
    /// A file of the head.
    pub(super) head: bool,
    /// A map lost its end.
    pub(super) cut_map: bool,
}

/// Which file: `replica.json`, the parts of each layer, `scrub.json`.
fn file(store: &Specimen, number: u8) -> (PathBuf, Option<(u64, Part)>) {
    let files = store.layers.len() * 3 + 2;
    let number = usize::from(number) % files;
    let Some(at) = number.checked_sub(1) else {
        return (store.directory.join("replica.json"), None);
    };
    match store.layers.get(at / 3) {
        None => (store.directory.join("scrub.json"), None),
        Some(layer) => {
            let part = PARTS[at % 3];
            let path = file_path(&store.directory, *layer, part);
            (path, Some((layer.raw(), part)))
        }
    }
}

/// Does to the files of `disk` what the commands say.
pub(super) fn damage(disk: &SimDisk, store: &Specimen, mut input: &[u8]) -> Damaged {
    let mut damaged = Damaged::default();
    let mut flips = 0;
    while let [number, kind, a, b, c, d, rest @ ..] = input {
        input = rest;
        let (path, part) = file(store, *number);
        let at = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
        let Ok(file) = disk.open(&path) else { continue };
        let Ok(length) = file.len() else { continue };
        damaged.head |= part.is_some_and(|(layer, _)| layer == store.head().raw());
        match kind >> 5 {
            0 => drop(disk.remove_file(&path)),
            1 => {
                damaged.cut_map |= part.is_some_and(|(_, part)| part == Part::Map);
                drop(file.set_len(at % (length + 1)));
            }
            2 => drop(file.set_len(length + at % LENGTHEN_BYTES_MAX)),
            _ if flips < FLIPS_MAX && length > 0 => {
                flips += 1;
                drop(disk.flip_bit(&path, at % length, kind & 7));
            }
            _ => {}
        }
    }
    damaged
}
