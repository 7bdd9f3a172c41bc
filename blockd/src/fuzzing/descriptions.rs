//! A `replica.json` or `scrub.json` that was edited anywhere, the former with its checksum made right
//! again too, in front of a real store: the tools and the daemon's loading take it or refuse it with a
//! reason, whatever size, layers and state it claims.

use super::specimen::{Specimen, closed};
use crate::disk::Disk;
use crate::disk::sim::{Fate, SimDisk};
use crate::replica::{self, Replica};

const FILE_BYTES_MAX: usize = 1 << 20;
/// Edits whose place has this bit are of `scrub.json`.
const SCRUB: u16 = 1 << 15;

thread_local! {
    static STORE: Specimen = closed();
}

/// Edits: place (2 bytes), bytes taken out, bytes put in, and those.
fn edit(mut text: Vec<u8>, mut edits: &[u8], scrub: u16) -> Vec<u8> {
    while let [low, high, out, put, rest @ ..] = edits {
        let place = u16::from_le_bytes([*low, *high]);
        let (new, rest) = rest.split_at(usize::from(*put).min(rest.len()));
        if place & SCRUB == scrub {
            let at = usize::from(place & !SCRUB) % (text.len() + 1);
            let end = (at + usize::from(*out)).min(text.len());
            text.splice(at..end, new.iter().copied());
        }
        edits = rest;
    }
    text
}

/// The text without the white space between its words.
fn compact(text: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let kept = text.chars().filter(|letter| {
        let kept = quoted || !letter.is_ascii_whitespace();
        quoted ^= *letter == '"' && !escaped;
        escaped = quoted && *letter == '\\' && !escaped;
        kept
    });
    kept.collect()
}

/// With the checksum that fits, if the file still has the members around it.
fn sealed(text: &[u8]) -> Option<Vec<u8>> {
    const SUM: &str = "\"crc32c\":";
    const REPLICA: &str = ",\"replica\":";
    let text = compact(std::str::from_utf8(text).ok()?);
    let (start, rest) = text.split_once(SUM)?;
    let (_, rest) = rest.split_once(REPLICA)?;
    let replica = rest.strip_suffix('}')?;
    let sum = ankole_proto::crc32c(replica.as_bytes());
    Some(format!("{start}{SUM}{sum}{REPLICA}{replica}}}").into_bytes())
}

fn use_store(store: &Specimen, description: &[u8], scrub: &[u8]) {
    let disk: SimDisk = store.disk.crash(Fate::Kept, 0);
    let directory = store.directory.as_path();
    for (name, text) in [("replica.json", description), ("scrub.json", scrub)] {
        disk.replace_file(&directory.join(name), text)
            .expect("room");
    }
    if let Ok(found) = replica::inspect(&disk, directory) {
        assert!(!found.layers.is_empty());
    }
    let _ = replica::verify(&disk, directory);
    let _ = replica::export(&disk, directory, None, |_, _| Ok(()));
    if let Ok(replica) = Replica::load(&disk, directory) {
        assert_eq!(
            replica.layers().last().map(|link| link.layer),
            Some(replica.head())
        );
        let _ = (replica.scrub_report(), replica.damages());
    }
}

pub(super) fn run(data: &[u8]) {
    STORE.with(|store| {
        let read = |name: &str| {
            let path = store.directory.join(name);
            store.disk.read_file(&path, FILE_BYTES_MAX)
        };
        let description = edit(read("replica.json").expect("it is there"), data, 0);
        let scrub = edit(read("scrub.json").expect("it is there"), data, SCRUB);
        use_store(store, &description, &scrub);
        if let Some(sealed) = sealed(&description) {
            use_store(store, &sealed, &scrub);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_description_gets_past_its_checksum() {
        let store = closed();
        let path = store.directory.join("replica.json");
        let good = store.disk.read_file(&path, FILE_BYTES_MAX).unwrap();
        let epoch = good
            .windows(8)
            .position(|bytes| bytes == b"\"epoch\":")
            .unwrap();
        let place = u16::try_from(epoch + 9).unwrap().to_le_bytes();
        let edited = edit(good, &[place[0], place[1], 0, 1, b'7'], 0);
        let load = |text: &[u8]| {
            let disk = store.disk.crash(Fate::Kept, 0);
            disk.replace_file(&path, text).unwrap();
            Replica::load(&disk, &store.directory).map(|replica| replica.epoch().raw())
        };
        assert!(load(&edited).is_err());
        assert_eq!(load(&sealed(&edited).unwrap()).unwrap(), 71);
    }
}
