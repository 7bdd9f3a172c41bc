//! What is undone when this program is told to end: clusters are taken down, folders removed.
//!
//! The processes of a dev cluster outlive whoever started them, so a signal that ended this program
//! on the spot would leave them running. [`watch`] takes SIGTERM, SIGINT and SIGHUP, ends the
//! programs that this one has started, runs what was registered with [`undo_with`], the youngest
//! first, and exits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

type Act = Box<dyn FnOnce() + Send>;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static ACTS: Acts = Acts(Mutex::new((0, Vec::new())));
/// Held while processes are being started that an undo could not see yet.
static STARTING: Mutex<()> = Mutex::new(());

/// What is to be undone, each with a number; and the next number.
struct Acts(Mutex<(u64, Vec<(u64, Act)>)>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Acts {
    fn add(&'static self, act: Act) -> Undo {
        let mut acts = locked(&self.0);
        let number = acts.0;
        acts.0 += 1;
        acts.1.push((number, act));
        Undo { number, acts: self }
    }

    /// The youngest first. More may be added and dropped meanwhile.
    fn run(&self) {
        loop {
            let last = locked(&self.0).1.pop();
            let Some((_, act)) = last else { return };
            act();
        }
    }
}

/// Something is undone on a signal for as long as this lives.
pub struct Undo {
    number: u64,
    acts: &'static Acts,
}

/// Registers what a signal has to undo.
pub fn undo_with(act: impl FnOnce() + Send + 'static) -> Undo {
    ACTS.add(Box::new(act))
}

impl Drop for Undo {
    fn drop(&mut self) {
        let keep = |(number, _): &(u64, Act)| *number != self.number;
        locked(&self.acts.0).1.retain(keep);
    }
}

/// Keeps an undo waiting while processes start; an error when this program is ending already.
///
/// # Errors
///
/// After a signal.
pub fn starting() -> anyhow::Result<impl Drop> {
    let guard = locked(&STARTING);
    ensure!(!INTERRUPTED.load(Ordering::SeqCst), "told to end");
    Ok(guard)
}

/// Takes the signals that ask this program to end.
///
/// # Errors
///
/// When signals or threads are not to be had.
pub fn watch() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot wait for signals")?;
    let entered = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    drop(entered);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            let number = runtime.block_on(async {
                tokio::select! {
                    _ = terminate.recv() => 15,
                    _ = interrupt.recv() => 2,
                    _ = hang_up.recv() => 1,
                }
            });
            INTERRUPTED.store(true, Ordering::SeqCst);
            undo();
            std::process::exit(128 + number);
        })
        .context("cannot start a thread for signals")?;
    Ok(())
}

/// Does not return when a signal has come: the program ends once everything is undone.
pub fn settle() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

fn undo() {
    end_children();
    let _starting = locked(&STARTING);
    ACTS.run();
    // Any that were started since.
    end_children();
}

/// Kills the programs that this one has started itself, such as a load.
fn end_children() {
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return;
    };
    for entry in entries.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        if parent(pid) == Some(own) {
            // It may have ended since it was listed.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn parent(pid: Pid) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The second field, the name, may hold anything, blanks and brackets included.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_is_registered_is_undone_once_and_what_was_dropped_is_not() {
        let acts: &'static Acts = Box::leak(Box::new(Acts(Mutex::default())));
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = |text: &'static str| {
            let told = Arc::clone(&told);
            acts.add(Box::new(move || locked(&told).push(text)))
        };
        let (first, gone, last) = (tell("first"), tell("gone"), tell("last"));
        drop(gone);
        acts.run();
        acts.run();
        assert_eq!(*locked(&told), ["last", "first"]);
        drop((first, last));
    }

    #[test]
    fn the_parent_of_a_process_is_read_off_the_process_table() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = Pid::from_child(&child);
        assert_eq!(parent(pid), Some(std::process::id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
