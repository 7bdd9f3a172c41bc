//! Deleting a snapshot beside I/O: how fast its layer is merged, and what that does to the latency
//! of the I/O; beside copying a plain file at the same pace.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ankole_blockd::replica::Progress;
use parking_lot::Mutex;

use crate::chain::Places;
use crate::figures::{Figures, Samples};
use crate::plain::Plain;
use crate::row::Row;
use crate::store::{BLOCK, Store, layer};

/// As `daemon::upkeep` does it: steps of 128 KiB, and after each a rest of three times its length.
const STEP_BLOCKS: u64 = 32;
const REST_FACTOR: u32 = 3;
const REST_MIN: Duration = Duration::from_millis(1);
const REST_MAX: Duration = Duration::from_millis(200);
/// Between two operations of the I/O.
const THINK: Duration = Duration::from_millis(1);
const ALONE: Duration = Duration::from_secs(5);
const PIECE: usize = 1 << 20;

pub(crate) fn run(folder: &Path, bytes: u64) -> anyhow::Result<Vec<Row>> {
    let (ours, alone) = on_store(folder, bytes)?;
    let (theirs, plain_alone) = on_plain(folder, bytes)?;
    let ratios = vec![ours.figures.per_second / theirs.figures.per_second];
    Ok(vec![
        Row::beside("I/O alone, 1 ms apart", alone, plain_alone, Vec::new()),
        rates("merge beside I/O, MiB", bytes, ours.time, theirs.time)?,
        Row::beside("I/O beside a merge", ours.figures, theirs.figures, ratios),
        at_full_speed(folder, bytes)?,
    ])
}

/// How fast a layer was merged, by the MiB, beside how fast a file was copied.
fn rates(case: &str, bytes: u64, ours: Duration, theirs: Duration) -> anyhow::Result<Row> {
    let mebibytes = usize::try_from(bytes >> 20)?;
    let (ours, theirs) = (
        Figures::of_bulk(mebibytes, ours),
        Figures::of_bulk(mebibytes, theirs),
    );
    let ratios = vec![ours.per_second / theirs.per_second];
    Ok(Row::beside(case, ours, theirs, ratios))
}

/// A merge that nothing holds back, beside a copy of a plain file in pieces of 1 MiB that is synced
/// as often as a merge syncs.
fn at_full_speed(folder: &Path, bytes: u64) -> anyhow::Result<Row> {
    let store = Mutex::new(deleted(folder, "full-speed", bytes)?);
    let ours = timed(|| merge(&store, |_| ()))?;
    store.into_inner().destroy()?;
    let from = Plain::create(&folder.join("from"), bytes)?;
    from.fill(bytes)?;
    let to = Plain::create(&folder.join("to"), bytes)?;
    let theirs = timed(|| {
        let mut piece = vec![0; PIECE];
        for at in (0..bytes).step_by(PIECE) {
            from.read_piece(&mut piece, at)?;
            to.write_piece(&piece, at)?;
            if at % (2 * PIECE as u64) != 0 {
                to.flush()?;
            }
        }
        Ok(())
    })?;
    for name in ["from", "to"] {
        std::fs::remove_file(folder.join(name))?;
    }
    rates(
        "merge, nothing beside, MiB",
        bytes,
        ours.time(),
        theirs.time(),
    )
}

fn timed(act: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Samples> {
    Samples::take(1, act)
}

/// What is done after a step that began then.
type Pause = fn(Instant);

/// I/O beside something that took this long.
struct Beside {
    figures: Figures,
    time: Duration,
}

fn rest(begun: Instant) {
    std::thread::park_timeout((begun.elapsed() * REST_FACTOR).clamp(REST_MIN, REST_MAX));
}

/// Operations with pauses between, until told to stop; every fourth is a write.
fn load(
    stop: &AtomicBool,
    blocks: u64,
    mut operation: impl FnMut(u64, bool) -> anyhow::Result<()>,
) -> anyhow::Result<Figures> {
    let mut places = Places::new(blocks, 1);
    let mut samples = Samples::default();
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        operation(places.draw(), number.is_multiple_of(4))?;
        samples.push(begun.elapsed());
        number += 1;
        std::thread::park_timeout(THINK);
    }
    Ok(samples.figures())
}

/// Runs the load while `work` goes on.
fn beside(
    work: impl FnOnce() -> anyhow::Result<()> + Send,
    load: impl FnOnce(&AtomicBool) -> anyhow::Result<Figures>,
) -> anyhow::Result<Beside> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let begun = Instant::now();
            let result = work();
            stop.store(true, Ordering::Relaxed);
            result.map(|()| begun.elapsed())
        });
        let figures = load(&stop)?;
        let time = worker
            .join()
            .map_err(|_| anyhow::anyhow!("the work panicked"))??;
        Ok(Beside { figures, time })
    })
}

fn idle() -> anyhow::Result<()> {
    let end = Instant::now() + ALONE;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
    Ok(())
}

/// A replica with a full sealed layer that is to go, under an empty head.
fn deleted(folder: &Path, name: &str, bytes: u64) -> anyhow::Result<Store> {
    let mut store = Store::create(folder, name, bytes)?;
    let piece = vec![0x5a; PIECE];
    for at in (0..bytes).step_by(PIECE) {
        store.write_piece(&piece, at)?;
    }
    store.seal()?;
    store.replica.remove_layer(layer(1)?)?;
    Ok(store)
}

fn on_store(folder: &Path, bytes: u64) -> anyhow::Result<(Beside, Figures)> {
    eprintln!("delete");
    let store = Mutex::new(deleted(folder, "delete", bytes)?);
    let io = |stop: &AtomicBool| {
        load(stop, bytes / BLOCK as u64, |block, writes| {
            let mut store = store.lock();
            if writes {
                store.write(block)
            } else {
                store.read(block)
            }
        })
    };
    let alone = beside(idle, io)?;
    let merging = beside(|| merge(&store, rest), io)?;
    store.into_inner().destroy()?;
    Ok((merging, alone.figures))
}

fn merge(store: &Mutex<Store>, pause: Pause) -> anyhow::Result<()> {
    loop {
        let begun = Instant::now();
        let progress = store.lock().replica.merge_step(STEP_BLOCKS)?;
        match progress {
            Progress::Idle => return Ok(()),
            Progress::Working { .. } => {}
            Progress::Sync(plan) => {
                let result = plan.run();
                store.lock().replica.finish_flush(plan, result)?;
            }
        }
        pause(begun);
    }
}

fn on_plain(folder: &Path, bytes: u64) -> anyhow::Result<(Beside, Figures)> {
    let from = Plain::create(&folder.join("from"), bytes)?;
    from.fill(bytes)?;
    let to = Plain::create(&folder.join("to"), bytes)?;
    let file = Mutex::new(Plain::create(&folder.join("plain"), bytes)?);
    file.lock().fill(bytes)?;
    let io = |stop: &AtomicBool| {
        load(stop, bytes / BLOCK as u64, |block, writes| {
            let mut file = file.lock();
            if writes {
                file.write(block)
            } else {
                file.read(block)
            }
        })
    };
    let alone = beside(idle, io)?;
    let copying = beside(|| copy(&from, &to, bytes), io)?;
    for name in ["from", "to", "plain"] {
        std::fs::remove_file(folder.join(name))?;
    }
    Ok((copying, alone.figures))
}

fn copy(from: &Plain, to: &Plain, bytes: u64) -> anyhow::Result<()> {
    let mut piece = vec![0; PIECE];
    for at in (0..bytes).step_by(PIECE) {
        let begun = Instant::now();
        from.read_piece(&mut piece, at)?;
        to.write_piece(&piece, at)?;
        to.flush()?;
        rest(begun);
    }
    Ok(())
}
