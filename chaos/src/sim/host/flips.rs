//! Bits that flipped, and which of them nobody can notice after a crash.
//!
//! A block's sum is written behind the block, and after an unclean stop the head's blocks are summed
//! anew where they differ (`docs/decisions/0009-flips-that-a-crash-hides.md`). A bit that flipped in
//! the head and is still there when its blockd dies would so become the block's contents. The store
//! does not promise to notice that one, so the simulator takes it back at the moment of the crash;
//! every other one stays and has to be noticed.

use std::path::PathBuf;

use ankole_blockd::disk::sim::SimDisk;
use ankole_proto::LayerId;

/// The bit of the byte that flips.
const BIT: u8 = 3;

/// One bit that flipped.
#[derive(Debug)]
struct Flip {
    layer: LayerId,
    image: PathBuf,
    byte: u64,
    /// Its page since then. Where it is still the same, nothing has repaired or overwritten the block;
    /// on the medium it may be although it was overwritten since.
    page: Vec<u8>,
}

/// Those of one replica.
#[derive(Debug, Default)]
pub(super) struct Flips {
    flips: Vec<Flip>,
}

impl Flips {
    /// Flips a bit of a layer's image; whether there is such a byte.
    pub(super) fn flip(
        &mut self,
        disk: &SimDisk,
        layer: LayerId,
        image: PathBuf,
        byte: u64,
    ) -> bool {
        if disk.flip_bit(&image, byte, BIT).is_err() {
            return false;
        }
        if let Some(page) = disk.peek_page(&image, byte) {
            self.flips.push(Flip {
                layer,
                image,
                byte,
                page,
            });
        }
        true
    }

    /// The blockd dies: takes back what is still there in the head, or may be after a power cut.
    pub(super) fn crash(&mut self, disk: &SimDisk, head: LayerId) {
        for flip in std::mem::take(&mut self.flips) {
            if flip.layer == head {
                disk.take_back_flip(&flip.image, flip.byte, BIT, &flip.page);
            } else {
                self.flips.push(flip);
            }
        }
    }
}
