//! The fuzz targets of what blockd reads from a disk, and inputs as they read them.

use ankole_blockd::fuzzing;
use ankole_blockd::layer::MapRecord;
use ankole_engine::fuzzing::{Dice, Target};
use ankole_proto::{ChunkNumber, LayerId};

/// All of them.
pub(super) const TARGETS: [Target; 6] = [
    Target {
        name: "stores",
        run: fuzzing::stores,
        compose: damages,
        tokens: PLACES,
    },
    Target {
        name: "unclean_stores",
        run: fuzzing::unclean_stores,
        compose: |dice| [vec![dice.byte(), dice.byte()], damages(dice)].concat(),
        tokens: PLACES,
    },
    Target {
        name: "golden_stores",
        run: fuzzing::golden_stores,
        compose: |dice| [vec![dice.byte()], damages(dice)].concat(),
        tokens: PLACES,
    },
    Target {
        name: "descriptions",
        run: fuzzing::descriptions,
        compose: edits,
        tokens: WORDS,
    },
    Target {
        name: "map_records",
        run: fuzzing::map_records,
        compose: map_record,
        tokens: PLACES,
    },
    Target {
        name: "disk_markers",
        run: fuzzing::disk_markers,
        compose: marker,
        tokens: WORDS,
    },
];

/// Places and lengths at which something begins, as the inputs have them.
const PLACES: &[&[u8]] = &[
    &[0, 0, 0, 0],
    &[0, 1, 0, 0],
    &[0, 2, 0, 0],
    &[0, 3, 0, 0],
    &[0, 0x10, 0, 0],
    &[0, 0x40, 0, 0],
    &[0, 0x80, 0x25, 0],
    &[0x20],
    &[0x40],
    &[0xff],
];

/// What the descriptions are made of.
const WORDS: &[&[u8]] = &[
    b"0",
    b"1",
    b"2",
    b"4096",
    b"18446744073709551615",
    b"-1",
    b"1e9",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"\"\"",
    b"\"clean\"",
    b"\"unclean\"",
    b"\"rebuilding\"",
    b"\"size\":",
    b"\"head\":",
    b"\"layers\":",
    b"\"parent\":",
    b",",
    b"}",
    b"00000000000000000000000000000001",
];

const REMOVE: u8 = 0;
const CUT: u8 = 1 << 5;
const LENGTHEN: u8 = 2 << 5;
const FLIP: u8 = 3 << 5;

/// Flips and cuts; what is cut is mostly made as long as it was, or longer.
fn damages(dice: &mut Dice<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=dice.below(3) {
        let file = dice.byte() % 20;
        match dice.below(6) {
            0 => out.extend(command(file, REMOVE, 0)),
            1 | 2 => {
                let kept = u32::from(dice.byte() % 4) * 256;
                out.extend(command(file, CUT, kept));
                let lost = dice.pick(&[256, 512, 768, 1024, 2800, 4400, 1 << 19]);
                out.extend(command(file, LENGTHEN, lost));
            }
            _ => {
                let near = u32::from(dice.byte()) * dice.pick(&[1, 3, 16, 4096]);
                out.extend(command(file, FLIP | (dice.byte() % 8), near));
            }
        }
    }
    out
}

fn command(file: u8, kind: u8, at: u32) -> [u8; fuzzing::COMMAND_BYTES] {
    let [a, b, c, d] = at.to_le_bytes();
    [file, kind, a, b, c, d]
}

/// Words put in the place of a few bytes of `replica.json`, one edit in four of `scrub.json`.
fn edits(dice: &mut Dice<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=dice.below(4) {
        let word = dice.pick(WORDS);
        let file = if dice.once_in(4) { 0x80 } else { 0 };
        let place = [dice.byte(), (dice.byte() % 4) | file];
        let put = u8::try_from(word.len()).unwrap_or(u8::MAX);
        out.extend(place);
        out.extend([dice.byte() % 12, put]);
        out.extend(word);
    }
    out
}

fn map_record(dice: &mut Dice<'_>) -> Vec<u8> {
    let mut record = MapRecord::default();
    for _ in 0..dice.below(20) {
        record.present.set(dice.below(512), true);
        record.zero.set(dice.below(512), true);
    }
    let layer = LayerId::from_raw(1 + u64::from(dice.byte()));
    let chunk = ChunkNumber::from_raw(u64::from(dice.byte()));
    layer.map_or_else(Vec::new, |layer| record.encode(layer, chunk).to_vec())
}

/// In either form.
fn marker(dice: &mut Dice<'_>) -> Vec<u8> {
    let id = u128::from(dice.byte()) << 64;
    let cluster = if dice.once_in(3) {
        "null".to_owned()
    } else {
        format!("\"{id:032x}\"")
    };
    let members = format!("\"disk\":\"{id:032x}\",\"cluster\":{cluster}");
    let text = if dice.once_in(2) {
        format!("{{\"format\":1,{members}}}\n")
    } else {
        let sum = ankole_proto::crc32c(format!("{{{members}}}").as_bytes());
        format!("{{\"format\":2,\"crc32c\":{sum},\"marker\":{{{members}}}}}\n")
    };
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ankole_blockd::store::Marker;

    use super::super::input;
    use super::*;

    #[test]
    fn composed_inputs_run_and_differ() {
        // What is damaged on purpose is for the fuzzer; here only what has no damage.
        for target in TARGETS.iter().skip(3) {
            for number in 0..50 {
                (target.run)(&input(target, 3, number));
            }
            assert_ne!(input(target, 3, 1), input(target, 3, 2));
        }
        let mut source = || 1;
        for _ in 0..2 {
            let made = marker(&mut Dice::new(&mut source));
            assert!(Marker::decode(Path::new("disk.json"), &made).is_ok());
        }
        for target in TARGETS {
            (target.run)(&[]);
            (target.run)(&[0; 2]);
        }
    }
}
