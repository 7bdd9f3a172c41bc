//! How long loading a replica takes, against its size, its layers and how full their maps are, beside
//! opening and reading plain files as long as the maps.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use ankole_blockd::disk::{Disk, LocalDisk};
use ankole_blockd::layer::{LayerFiles, Lengths, MapRecord, PLACES, Part};
use ankole_blockd::replica::{self, Replica};
use ankole_proto::{ChunkNumber, VolumeSize};
use anyhow::Context;

use crate::chain::Places;
use crate::figures::Samples;
use crate::plain::{Plain, forget};
use crate::row::Row;
use crate::store::{BLOCK, Store, layer};

const LOADS: usize = 5;
/// Written to the head that is not closed.
const SCATTERED_BLOCKS: usize = 64 << 10;
const FILE_BYTES_MAX: usize = 1 << 20;

/// Where the maps are when loading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Maps {
    Cached,
    Cold,
}

/// How the replica was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Closed,
    /// With blocks all over the head, which recovery compares with the extents of its image.
    Killed,
}

/// One chunk of so many has blocks, all of them.
#[derive(Debug, Clone, Copy)]
struct Case {
    gib: u64,
    layers: u64,
    one_chunk_of: u64,
    maps: Maps,
    left: Left,
}

const fn case(gib: u64, layers: u64, one_chunk_of: u64) -> Case {
    Case {
        gib,
        layers,
        one_chunk_of,
        maps: Maps::Cached,
        left: Left::Closed,
    }
}

const CASES: [Case; 8] = [
    case(1, 1, 1),
    case(1, 254, 1),
    case(100, 1, 1),
    case(100, 50, 16),
    case(100, 50, 1),
    Case {
        maps: Maps::Cold,
        ..case(100, 50, 1)
    },
    Case {
        left: Left::Killed,
        ..case(100, 50, 1)
    },
    Case {
        maps: Maps::Cold,
        left: Left::Killed,
        ..case(100, 50, 1)
    },
];

pub(crate) fn run(folder: &Path) -> anyhow::Result<Vec<Row>> {
    CASES.iter().map(|case| loads(folder, *case)).collect()
}

/// In turns: the replica, the files.
fn loads(folder: &Path, case: Case) -> anyhow::Result<Row> {
    let (disk, directory) = mapped(folder, case)?;
    if case.left == Left::Killed {
        scatter(&disk, &directory, case)?;
    }
    let layers = disk.root().join(&directory).join("layers");
    let files = folder.join("maps");
    let length = Lengths::of(VolumeSize::from_bytes(case.gib << 30)?).bytes(Part::Map);
    let paths = plain_maps(&files, case.layers + 1, length)?;
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    let mut ratios = Vec::new();
    for _ in 0..LOADS {
        if case.maps == Maps::Cold {
            forget(&layers, ".map")?;
            forget(&files, "")?;
        }
        let load = Samples::take(1, || {
            drop(Replica::load(&disk, &directory)?);
            Ok(())
        })?;
        let read = Samples::take(1, || read_all(&paths))?;
        ratios.push(load.rate() / read.rate());
        ours.join(load);
        theirs.join(read);
    }
    replica::destroy(&disk, &directory)?;
    std::fs::remove_dir_all(files)?;
    let row = Row::beside(name(case), ours.figures(), theirs.figures(), ratios);
    eprintln!("{row}");
    Ok(row)
}

fn name(case: Case) -> String {
    let cold = match case.maps {
        Maps::Cached => "",
        Maps::Cold => ", cold",
    };
    let killed = match case.left {
        Left::Closed => "",
        Left::Killed => ", killed",
    };
    format!(
        "open, {} GiB, {} layers, 1/{} mapped{killed}{cold}",
        case.gib, case.layers, case.one_chunk_of
    )
}

/// A closed replica whose sealed layers have maps but no data: loading reads maps only.
fn mapped(folder: &Path, case: Case) -> anyhow::Result<(LocalDisk, PathBuf)> {
    let bytes = case.gib << 30;
    let mut store = Store::create(folder, "open", bytes)?;
    for _ in 0..case.layers {
        store.seal()?;
    }
    let (disk, directory) = store.close()?;
    let size = VolumeSize::from_bytes(bytes)?;
    let mut record = MapRecord::default();
    for block in 0..PLACES {
        record.present.set(block, true);
    }
    for raw in 1..=case.layers {
        let files = LayerFiles::open(&disk, &directory, layer(raw)?, Lengths::of(size))
            .map_err(|(_, error)| error)?;
        let first = raw % case.one_chunk_of;
        let step = usize::try_from(case.one_chunk_of)?;
        for chunk in (first..size.chunks()).step_by(step) {
            files.write_record(ChunkNumber::from_raw(chunk), &record)?;
        }
    }
    let present = size.chunks() / case.one_chunk_of * PLACES as u64;
    tell_mapped(&disk, &directory, case.layers, present)?;
    Ok((disk, directory))
}

/// Has `replica.json` say what the maps of the sealed layers hold now.
fn tell_mapped(
    disk: &LocalDisk,
    directory: &Path,
    sealed: u64,
    present: u64,
) -> anyhow::Result<()> {
    let path = directory.join("replica.json");
    let text = String::from_utf8(disk.read_file(&path, FILE_BYTES_MAX)?)?;
    // Nothing in it has white space of its own.
    let compact: String = text.split_ascii_whitespace().collect();
    let (start, replica) = compact
        .strip_suffix('}')
        .and_then(|text| text.split_once(",\"replica\":"))
        .context("no replica in replica.json")?;
    let (format, _) = start
        .split_once(",\"crc32c\":")
        .context("no checksum in replica.json")?;
    // The head is the last layer, and keeps what it says.
    let replica = replica.replacen(
        "{\"present\":0,\"zero\":0}",
        &format!("{{\"present\":{present},\"zero\":0}}"),
        usize::try_from(sealed)?,
    );
    let sum = ankole_proto::crc32c(replica.as_bytes());
    let text = format!("{format},\"crc32c\":{sum},\"replica\":{replica}}}");
    Ok(disk.replace_file(&path, text.as_bytes())?)
}

/// Writes blocks all over the head, flushes, and does not close.
fn scatter(disk: &LocalDisk, directory: &Path, case: Case) -> anyhow::Result<()> {
    let bytes = case.gib << 30;
    let mut store = Store::open(disk.clone(), directory.to_owned(), bytes)?;
    let mut places = Places::new(bytes / BLOCK as u64, 1);
    for _ in 0..SCATTERED_BLOCKS {
        store.write(places.draw())?;
    }
    store.flush()
}

/// Full files of this length.
fn plain_maps(folder: &Path, count: u64, bytes: u64) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir(folder)?;
    let mut paths = Vec::new();
    for number in 0..count {
        let path = folder.join(number.to_string());
        let file = Plain::create(&path, bytes)?;
        file.write_piece(&vec![0x5a; usize::try_from(bytes)?], 0)?;
        file.flush()?;
        paths.push(path);
    }
    Ok(paths)
}

/// Reads them in pieces of 1 MiB.
fn read_all(paths: &[PathBuf]) -> anyhow::Result<()> {
    let mut piece = vec![0; 1 << 20];
    for path in paths {
        let mut file = File::open(path)?;
        while file.read(&mut piece)? > 0 {}
    }
    Ok(())
}
