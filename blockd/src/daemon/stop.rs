//! The wish to stop, seen by tasks and by threads.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

/// Asked for once, never taken back.
#[derive(Debug, Default)]
pub struct Stop {
    asked: AtomicBool,
    tasks: Notify,
    lock: Mutex<()>,
    threads: Condvar,
}

impl Stop {
    /// Asks everybody to stop.
    pub fn ask(&self) {
        let guard = self.lock.lock();
        self.asked.store(true, Ordering::SeqCst);
        drop(guard);
        self.threads.notify_all();
        self.tasks.notify_waiters();
    }

    /// Whether it was asked for.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until it is asked for.
    pub async fn asked(&self) {
        let notified = self.tasks.notified();
        tokio::pin!(notified);
        // Registered before the look, so that a wish between the two is not missed.
        notified.as_mut().enable();
        if !self.is_asked() {
            notified.await;
        }
    }

    /// Rests this long, less when it is asked for meanwhile. `true` when it was.
    pub fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut guard = self.lock.lock();
        while !self.is_asked() && !self.threads.wait_until(&mut guard, until).timed_out() {}
        self.is_asked()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_wish_wakes_tasks_and_threads_that_wait_or_come_later() {
        let stop = Arc::new(Stop::default());
        let waiting = Arc::clone(&stop);
        let thread = std::thread::spawn(move || waiting.rest(Duration::from_secs(60)));
        assert!(!stop.rest(Duration::from_millis(1)));
        stop.ask();
        assert!(thread.join().unwrap());
        assert!(stop.rest(Duration::from_secs(60)));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(stop.asked());
    }
}
