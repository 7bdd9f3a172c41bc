//! How long loading a replica takes, against its size, its layers and how full their maps are.

use std::path::{Path, PathBuf};

use ankole_blockd::disk::LocalDisk;
use ankole_blockd::layer::{LayerFiles, Lengths, MapRecord, PLACES};
use ankole_blockd::replica::{self, Replica};
use ankole_proto::{ChunkNumber, VolumeSize};

use crate::figures::Samples;
use crate::row::Row;
use crate::store::{Store, layer};

const LOADS: usize = 3;

/// One chunk of so many has blocks, all of them.
struct Case {
    gib: u64,
    layers: u64,
    one_chunk_of: u64,
}

const fn case(gib: u64, layers: u64, one_chunk_of: u64) -> Case {
    Case {
        gib,
        layers,
        one_chunk_of,
    }
}

const CASES: [Case; 5] = [
    case(1, 1, 1),
    case(1, 254, 1),
    case(100, 1, 1),
    case(100, 50, 16),
    case(100, 50, 1),
];

pub(crate) fn run(folder: &Path) -> anyhow::Result<Vec<Row>> {
    CASES.iter().map(|case| loads(folder, case)).collect()
}

fn loads(folder: &Path, case: &Case) -> anyhow::Result<Row> {
    let name = format!(
        "open, {} GiB, {} layers, 1/{} mapped",
        case.gib, case.layers, case.one_chunk_of
    );
    let (disk, directory) = mapped(folder, case)?;
    let samples = Samples::take(LOADS, || {
        drop(Replica::load(&disk, &directory)?);
        Ok(())
    })?;
    replica::destroy(&disk, &directory)?;
    let row = Row::alone(name, samples.figures());
    eprintln!("{row}");
    Ok(row)
}

/// A closed replica whose sealed layers have maps but no data: loading reads maps only.
fn mapped(folder: &Path, case: &Case) -> anyhow::Result<(LocalDisk, PathBuf)> {
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
    Ok((disk, directory))
}
