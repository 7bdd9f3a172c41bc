//! Two volumes that one writer writes to in turns, each number first to the one and then, when it
//! is acknowledged, to the other. So at every moment, and in every consistent cut, the first holds
//! the same number as the second or the next one. The first is reserved for its writer.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};

use crate::cluster::Volume;
use crate::initiator::{Command, Held, Kind, Options, Outcome, Session};

/// The volumes.
pub(super) const PAIR: [&str; 2] = ["live-a", "live-b"];
pub(super) const PAIR_SIZE: &str = "16MiB";
/// What the first is reserved under.
const KEY: u64 = 0x616e_6b6f_6c65;
/// With the initiator's name it is one initiator port through every portal.
const ISID: u32 = 0x0000_a11e;
const BLOCK_BYTES: usize = 4096;
/// Between two numbers: the load on the other volume is the one that is to be heavy.
const PAUSE: Duration = Duration::from_millis(2);
const WAIT: Duration = Duration::from_millis(20);
/// An engine holds I/O for 20 s and then asks to come again.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const CONFLICT: &str = "status 0x18";
/// libiscsi's own status, where the connection broke.
const DISCONNECTED: &str = "status 0xf0000";

/// What the writer and its owner share.
#[derive(Default)]
struct Shared {
    urls: Mutex<[String; 2]>,
    stop: AtomicBool,
    /// The last number that both have acknowledged.
    written: AtomicU64,
}

impl Shared {
    fn urls(&self) -> MutexGuard<'_, [String; 2]> {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writer.
pub(super) struct Pair {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Pair {
    /// Starts writing.
    pub(super) fn start(volumes: [&Volume; 2]) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared::default());
        *shared.urls() = volumes.map(|volume| volume.url.clone());
        let writer = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("pair".to_owned())
            .spawn(move || write(&writer))
            .context("cannot start a thread")?;
        let thread = Some(thread);
        Ok(Self { shared, thread })
    }

    /// The first volume is served elsewhere now.
    pub(super) fn move_to(&self, url: &str) {
        url.clone_into(&mut self.shared.urls()[0]);
    }

    /// Waits until a number that was not sent before this call is on both.
    pub(super) fn goes_on(&self) -> anyhow::Result<()> {
        let before = self.shared.written.load(Ordering::SeqCst);
        let deadline = Instant::now() + ANSWER_LIMIT;
        // The next one may have been on its way.
        while self.shared.written.load(Ordering::SeqCst) < before + 2 {
            let ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            ensure!(!ended, "the writer of the pair has ended");
            ensure!(Instant::now() < deadline, "the pair stands at {before}");
            std::thread::sleep(WAIT);
        }
        Ok(())
    }

    /// Whether the first volume still is its writer's: that it is registered and holds the
    /// reservation, and that another initiator's write is refused.
    pub(super) fn reservation_holds(&self) -> anyhow::Result<()> {
        let url = || self.shared.urls()[0].clone();
        let (_, mut intruder) = connect(url, "intruder", None)?;
        let held = intruder.held().map_err(anyhow::Error::msg)?;
        ensure!(held == Held::only(KEY), "{held:?}");
        match ask(&mut intruder, u64::MAX, &|| false)? {
            Some(Outcome::Failed(reason)) if reason.starts_with(CONFLICT) => Ok(()),
            outcome => bail!("a write of another initiator ended with {outcome:?}"),
        }
    }

    /// Stops writing; the last number on both, or what went wrong.
    pub(super) fn finish(&mut self) -> anyhow::Result<u64> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("it was stopped before")?;
        thread
            .join()
            .unwrap_or_else(|_| Err(anyhow!("the writer of the pair panicked")))?;
        Ok(self.shared.written.load(Ordering::SeqCst))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

/// The numbers in images of both make a consistent cut.
pub(super) fn is_cut(images: [&Path; 2]) -> anyhow::Result<(u64, u64)> {
    let (first, second) = (number(images[0])?, number(images[1])?);
    let consistent = first == second || first == second + 1;
    ensure!(
        consistent,
        "the first holds {first}, the second {second}: no moment had both"
    );
    Ok((first, second))
}

/// The number in an image of a volume; it was written whole.
fn number(image: &Path) -> anyhow::Result<u64> {
    let mut block = [0; BLOCK_BYTES];
    File::open(image)?.read_exact(&mut block)?;
    let (numbers, _) = block.as_chunks::<8>();
    let number = u64::from_le_bytes(numbers.first().copied().unwrap_or_default());
    let whole = numbers.iter().all(|other| *other == number.to_le_bytes());
    ensure!(whole, "the block of {} is torn", image.display());
    Ok(number)
}

/// A session at the portal that `url` tells each time it is asked, and that portal.
fn connect(
    url: impl Fn() -> String,
    name: &str,
    isid: Option<u32>,
) -> anyhow::Result<(String, Session)> {
    let options = Options {
        name: format!("iqn.2026-01.io.ankole.chaos:{name}"),
        isid,
        // libiscsi would log in again under another ISID, as another initiator port.
        reconnect: false,
        timeout: Some(ANSWER_LIMIT),
        ..Options::default()
    };
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        let at = url();
        match Session::connect(&at, &options) {
            Ok(session) => return Ok((at, session)),
            Err(error) if Instant::now() >= deadline => return Err(error.into()),
            // Its engine may be starting, or be elsewhere by now.
            Err(_) => std::thread::sleep(WAIT),
        }
    }
}

/// Writes this number; `None` when it has to be written through another session, because this one
/// broke or because `moved` says so.
fn ask(
    session: &mut Session,
    number: u64,
    moved: &dyn Fn() -> bool,
) -> anyhow::Result<Option<Outcome>> {
    let deadline = Instant::now() + ANSWER_LIMIT;
    let command = || Command {
        token: number,
        kind: Kind::Write { fua: false },
        offset: 0,
        buffer: number.to_le_bytes().repeat(BLOCK_BYTES / 8),
    };
    session.submit(command()).map_err(anyhow::Error::msg)?;
    while !moved() {
        ensure!(Instant::now() < deadline, "{number} is not answered");
        let Ok(completions) = session.wait(WAIT) else {
            return Ok(None);
        };
        for completion in completions {
            match completion.outcome {
                Outcome::Again(_) => session.submit(command()).map_err(anyhow::Error::msg)?,
                Outcome::Failed(why) if why.starts_with(DISCONNECTED) => return Ok(None),
                outcome => return Ok(Some(outcome)),
            }
        }
    }
    Ok(None)
}

/// One of the volumes, with a session at the portal that it was last seen at.
struct Place<'a> {
    shared: &'a Shared,
    index: usize,
    session: Option<(String, Session)>,
}

impl Place<'_> {
    fn url(&self) -> String {
        self.shared.urls()[self.index].clone()
    }

    fn write(&mut self, number: u64) -> anyhow::Result<()> {
        loop {
            let url = self.url();
            let stays = self.session.take().filter(|(at, _)| *at == url);
            let (url, mut session) = match stays {
                Some(stays) => stays,
                None => connect(|| self.url(), "pair", Some(ISID))?,
            };
            match ask(&mut session, number, &|| self.url() != url)? {
                Some(Outcome::Done) => {
                    self.session = Some((url, session));
                    return Ok(());
                }
                Some(outcome) => bail!("{number} to {}: {outcome:?}", PAIR[self.index]),
                None => {}
            }
        }
    }
}

fn write(shared: &Shared) -> anyhow::Result<()> {
    let mut places = [0, 1].map(|index| Place {
        shared,
        index,
        session: None,
    });
    let [first, second] = &mut places;
    let (url, mut session) = connect(|| first.url(), "pair", Some(ISID))?;
    session.reserve(KEY).map_err(anyhow::Error::msg)?;
    first.session = Some((url, session));
    for number in 1.. {
        if shared.stop.load(Ordering::SeqCst) {
            break;
        }
        first.write(number)?;
        second.write(number)?;
        shared.written.store(number, Ordering::SeqCst);
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_holds_a_number_or_it_and_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let image = |name: &str, number: u64| {
            let path = folder.path().join(name);
            std::fs::write(&path, number.to_le_bytes().repeat(BLOCK_BYTES / 8)).unwrap();
            path
        };
        let (seven, eight, nine) = (image("7", 7), image("8", 8), image("9", 9));
        assert_eq!(is_cut([&seven, &seven]).unwrap(), (7, 7));
        assert_eq!(is_cut([&eight, &seven]).unwrap(), (8, 7));
        assert!(is_cut([&seven, &eight]).is_err());
        assert!(is_cut([&nine, &seven]).is_err());
        let torn = folder.path().join("torn");
        let mut block = 7_u64.to_le_bytes().repeat(BLOCK_BYTES / 8);
        block[4000] ^= 1;
        std::fs::write(&torn, block).unwrap();
        assert!(is_cut([&torn, &torn]).is_err());
    }
}
