//! Any bytes as `disk.json`: an error that names the file, or a marker.
#![no_main]

use std::path::Path;

use ankole_blockd::store::Marker;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let path = Path::new("disk.json");
    match Marker::decode(path, data) {
        Ok(marker) => assert_eq!(Marker::decode(path, data).ok(), Some(marker)),
        Err(error) => assert!(error.to_string().contains("disk.json")),
    }
});
