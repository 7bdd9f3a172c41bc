//! The daemons' reports, shared between the services and the reconciler.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ankole_proto::VolumeId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::reconcile::{Now, Observed, Tick};

/// What was reported to this manager, and the clock that reports are timed by.
#[derive(Debug)]
pub struct Reports {
    observed: Mutex<Observed>,
    changed: watch::Sender<u64>,
    started: Instant,
}

impl Default for Reports {
    fn default() -> Self {
        Self {
            observed: Mutex::new(Observed::default()),
            changed: watch::Sender::new(0),
            started: Instant::now(),
        }
    }
}

impl Reports {
    /// The present moment.
    pub fn now(&self) -> Now {
        let tick = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            tick: Tick(tick),
            wall_ms: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Looks at the reports.
    pub fn look<R>(&self, look: impl FnOnce(&Observed) -> R) -> R {
        look(&self.observed.lock())
    }

    /// Changes the reports and wakes whoever waits for news.
    pub fn note<R>(&self, note: impl FnOnce(&mut Observed) -> R) -> R {
        let result = note(&mut self.observed.lock());
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
        result
    }

    /// Forgets engines of volumes that are gone. Nobody waits for that.
    pub fn keep_engines(&self, exists: impl Fn(&VolumeId) -> bool) {
        let mut observed = self.observed.lock();
        observed.engines.retain(|volume, _| exists(volume));
    }

    /// Forgets every report: this manager leads from now on, and knows nothing yet.
    pub fn start_over(&self) {
        let since = self.now().tick;
        self.note(|observed| *observed = Observed::new(since));
    }

    /// Counts reports.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
