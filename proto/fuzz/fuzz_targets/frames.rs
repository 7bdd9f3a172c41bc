//! Any bytes into the frame decoder and into every body's reader: an error or a value that encodes
//! to the same bytes, never a panic.
#![no_main]

use ankole_proto::wire::body::{OpenRequest, Opened, Revert, Seal};
use ankole_proto::wire::cursor::RebuildCursor;
use ankole_proto::wire::rebuild::{
    BeginRebuild, ChunkDigest, ContentsDigest, ContentsOf, LayerBlocks, LayerOf, WriteLayer,
};
use ankole_proto::wire::{Decoder, Frame};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;

macro_rules! reads_back {
    ($payload:expr, $($body:ty),+) => {
        $(if let Ok(body) = <$body>::decode($payload) {
            assert_eq!(<$body>::decode(&body.encode()).as_ref(), Ok(&body));
        })+
    };
}

fn bodies(payload: &Bytes) {
    reads_back!(payload, OpenRequest, Opened, Seal, Revert, LayerOf, ChunkDigest, BeginRebuild);
    reads_back!(payload, RebuildCursor, ContentsOf, ContentsDigest);
    if let Ok(blocks) = LayerBlocks::decode(payload.clone()) {
        assert_eq!(LayerBlocks::decode(blocks.encode()), Ok(blocks));
    }
    if let Ok(write) = WriteLayer::decode(payload.clone()) {
        assert_eq!(WriteLayer::decode(write.encode()), Ok(write));
    }
}

fuzz_target!(|data: &[u8]| {
    bodies(&Bytes::copy_from_slice(data));
    let mut buffer = BytesMut::from(data);
    let mut decoder = Decoder::new();
    while let Ok(Some(Frame { header, payload })) = decoder.decode(&mut buffer) {
        assert_eq!(header.with_payload(&payload), header);
        bodies(&payload);
    }
});
