//! The bodies of the fuzz targets: any bytes in, an assertion that fails or nothing. Run by libFuzzer
//! (`blockd/fuzz`, nightly) and by `ankole-chaos fuzz` (stable, in every gate).

mod damage;
mod descriptions;
mod map_records;
mod specimen;
mod stores;

use std::path::Path;

use crate::store::Marker;

pub use damage::COMMAND_BYTES;
pub use stores::{golden_stores, stores, unclean_stores};

/// Edits of `replica.json` and `scrub.json` in front of a real store.
pub fn descriptions(data: &[u8]) {
    descriptions::run(data);
}

/// Any bytes as a map record.
pub fn map_records(data: &[u8]) {
    map_records::run(data);
}

/// Any bytes as `disk.json`: an error that names the file, or a marker.
///
/// # Panics
///
/// When it is neither.
pub fn disk_markers(data: &[u8]) {
    let path = Path::new("disk.json");
    match Marker::decode(path, data) {
        Ok(marker) => assert_eq!(Marker::decode(path, data).ok(), Some(marker)),
        Err(error) => assert!(error.to_string().contains("disk.json")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_was_cut_and_extended_again_is_missed() {
        // `layers/2.map` cut to 0, and extended to its length.
        stores(&[5, 0x20, 0, 0, 0, 0, 5, 0x40, 0, 2, 0, 0]);
    }

    #[test]
    fn every_target_takes_anything() {
        let targets = [
            stores,
            unclean_stores,
            golden_stores,
            descriptions,
            map_records,
            disk_markers,
        ];
        for target in targets {
            target(&[]);
            target(&[0xff; 100]);
            for first in 0..=u8::MAX {
                target(&[first, first.rotate_left(3)]);
            }
        }
    }
}
