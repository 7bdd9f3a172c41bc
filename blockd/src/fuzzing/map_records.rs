//! Any bytes as a map record, with the checksum they have and with the right one: an error, or a
//! record that is written and read as it is.

use ankole_proto::{ChunkNumber, LayerId};

use crate::layer::{MapRecord, RECORD_BYTES};

const CRC_AT: usize = RECORD_BYTES - 4;

fn read(bytes: &[u8], layer: LayerId, chunk: ChunkNumber) {
    if let Ok(record) = MapRecord::decode(bytes, layer, chunk) {
        let written = record.encode(layer, chunk);
        assert_eq!(MapRecord::decode(&written, layer, chunk), Ok(record));
        let hidden = record.zero_without_data();
        for block in 0..512 {
            let present = record.present.contains(block);
            assert!(!(present && hidden.contains(block)));
            assert_eq!(record.decides(block), present || hidden.contains(block));
        }
    }
}

pub(super) fn run(data: &[u8]) {
    // The place that the bytes themselves name, so that a sound record is reached at all.
    let number = |at: usize| {
        data.get(at..at + 8)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(1, u64::from_le_bytes)
    };
    let layer = LayerId::from_raw(number(128).max(1)).expect("not 0");
    let chunk = ChunkNumber::from_raw(number(136) % (1 << 32));
    read(data, layer, chunk);
    let mut sealed = data.to_vec();
    sealed.resize(RECORD_BYTES, 0);
    let crc = ankole_proto::crc32c(&sealed[..CRC_AT]);
    sealed[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    read(&sealed, layer, chunk);
}
