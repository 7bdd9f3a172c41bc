//! How long a snapshot takes: the seal of a flushed head, for small and large volumes.

use std::path::Path;

use crate::chain::Places;
use crate::figures::Samples;
use crate::row::Row;
use crate::store::{BLOCK, Store};

const SIZES_GIB: [u64; 2] = [1, 100];
const SNAPSHOTS: usize = 50;
/// Written before each snapshot.
const WRITES: usize = 256;

pub(crate) fn run(folder: &Path) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for gib in SIZES_GIB {
        for flushed in [true, false] {
            rows.push(seals(folder, gib, flushed)?);
        }
    }
    Ok(rows)
}

fn seals(folder: &Path, gib: u64, flushed: bool) -> anyhow::Result<Row> {
    let what = if flushed {
        "after a flush"
    } else {
        "1 MiB unflushed"
    };
    let case = format!("snapshot, {gib} GiB, {what}");
    let bytes = gib << 30;
    let mut store = Store::create(folder, "seals", bytes)?;
    let mut places = Places::new(bytes / BLOCK as u64, gib);
    let mut samples = Samples::default();
    for _ in 0..SNAPSHOTS {
        for _ in 0..WRITES {
            store.write(places.draw())?;
        }
        if flushed {
            store.flush()?;
        }
        samples.join(Samples::take(1, || store.seal())?);
    }
    store.destroy()?;
    let row = Row::alone(case, samples.figures());
    eprintln!("{row}");
    Ok(row)
}
