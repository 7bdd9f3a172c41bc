//! How long this machine has kept a simple program waiting, so that a gap in I/O can be told from
//! a machine that had no time for it.
//!
//! A thread does again and again what every step of a recovery does: it sleeps, wakes up, writes
//! and syncs a block on the disk that the cluster is on. What a turn takes beyond its sleep and the
//! usual time of such a write is what a chain of such steps loses in that time.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;

const SLEEP: Duration = Duration::from_millis(10);
/// Of a write with a sync on a disk that has nothing else to do, and of waking up.
const USUAL: Duration = Duration::from_millis(5);
const BLOCK_BYTES: usize = 4096;

/// A turn that took longer than usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stall {
    from_ms: u64,
    to_ms: u64,
    late_ms: u64,
}

/// A meter that runs.
pub(super) struct Stalls {
    found: Arc<Mutex<Vec<Stall>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stalls {
    /// Starts measuring, on the disk of this folder.
    pub(super) fn start(folder: &Path) -> anyhow::Result<Self> {
        let mut file = File::create(folder.join("stalls"))?;
        let found = Arc::new(Mutex::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (stalls, stopped) = (Arc::clone(&found), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("stalls".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    if let Some(stall) = turn(&mut file) {
                        locked(&stalls).push(stall);
                    }
                }
            })
            .context("cannot start a thread")?;
        Ok(Self {
            found,
            stop,
            thread: Some(thread),
        })
    }

    /// What a chain of steps has lost between these moments, in milliseconds.
    pub(super) fn late_ms(&self, from_ms: u64, to_ms: u64) -> u64 {
        late_ms(&locked(&self.found), from_ms, to_ms)
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in there was told by then.
            let _ = thread.join();
        }
    }
}

fn locked(found: &Mutex<Vec<Stall>>) -> std::sync::MutexGuard<'_, Vec<Stall>> {
    found.lock().unwrap_or_else(PoisonError::into_inner)
}

fn turn(file: &mut File) -> Option<Stall> {
    let from_ms = now_ms();
    let start = Instant::now();
    std::thread::sleep(SLEEP);
    // A disk that refuses is late as well; how late shows below.
    let _ = file
        .rewind()
        .and_then(|()| file.write_all(&[0; BLOCK_BYTES]))
        .and_then(|()| file.sync_data());
    let late = start.elapsed().saturating_sub(SLEEP + USUAL);
    let late_ms = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
    (late_ms > 0).then(|| Stall {
        from_ms,
        to_ms: now_ms(),
        late_ms,
    })
}

/// Of a turn that reaches beyond the moments only its share counts.
fn late_ms(stalls: &[Stall], from_ms: u64, to_ms: u64) -> u64 {
    stalls
        .iter()
        .map(|stall| {
            let begin = stall.from_ms.max(from_ms);
            let within = stall.to_ms.min(to_ms).saturating_sub(begin);
            stall.late_ms.min(within)
        })
        .sum()
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_moments_counts() {
        let stall = |from_ms, to_ms, late_ms| Stall {
            from_ms,
            to_ms,
            late_ms,
        };
        let stalls = [
            stall(0, 100, 85),
            stall(1000, 1050, 35),
            stall(1900, 2900, 985),
        ];
        assert_eq!(late_ms(&stalls, 1000, 2000), 35 + 100);
        assert_eq!(late_ms(&stalls, 3000, 4000), 0);
        assert_eq!(late_ms(&stalls, 0, 4000), 85 + 35 + 985);
    }

    #[test]
    fn a_machine_that_runs_is_measured() {
        let folder = tempfile::tempdir().unwrap();
        let stalls = Stalls::start(folder.path()).unwrap();
        let now = now_ms();
        assert!(stalls.late_ms(now, now + 10_000) <= 10_000);
    }
}
