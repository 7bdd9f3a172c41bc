//! How long a snapshot takes, for small and large volumes: the seal of a head, beside what plain files
//! need for the same promise.

use std::path::Path;

use crate::chain::Places;
use crate::figures::Samples;
use crate::plain::Versions;
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

/// In turns: a snapshot here, one there.
fn seals(folder: &Path, gib: u64, flushed: bool) -> anyhow::Result<Row> {
    let what = if flushed {
        "after a flush"
    } else {
        "1 MiB unflushed"
    };
    let case = format!("snapshot, {gib} GiB, {what}");
    let bytes = gib << 30;
    let mut store = Store::create(folder, "seals", bytes)?;
    let mut versions = Versions::create(&folder.join("versions"), bytes)?;
    let mut places = Places::new(bytes / BLOCK as u64, gib);
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    let mut ratios = Vec::new();
    for _ in 0..SNAPSHOTS {
        let blocks: Vec<u64> = (0..WRITES).map(|_| places.draw()).collect();
        blocks.iter().try_for_each(|block| store.write(*block))?;
        if flushed {
            store.flush()?;
        }
        let seal = Samples::take(1, || store.seal())?;
        let newest = versions.newest();
        blocks.iter().try_for_each(|block| newest.write(*block))?;
        if flushed {
            newest.flush()?;
        }
        let plain = Samples::take(1, || versions.begin_next())?;
        ratios.push(seal.rate() / plain.rate());
        ours.join(seal);
        theirs.join(plain);
    }
    store.destroy()?;
    versions.remove()?;
    let row = Row::beside(case, ours.figures(), theirs.figures(), ratios);
    eprintln!("{row}");
    Ok(row)
}
