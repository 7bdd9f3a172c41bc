//! The few threads that do what would keep a connection waiting: syncs; and others for what syncs must
//! not wait for: copies of whole layers, which take long, and digests of contents, which have time.

use std::num::NonZeroUsize;
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};

/// Something to do on a disk thread.
pub(super) type Job = Box<dyn FnOnce() + Send>;

/// Jobs that wait for a thread at most. Each replica has at most one sync and one change of its
/// tree under way, so more than this many busy replicas wait in their connections' own threads.
const JOBS_WAITING_MAX: usize = 1024;

/// Bounded pools of threads with bounded queues.
#[derive(Debug)]
pub(super) struct DiskThreads {
    jobs: Option<Sender<Job>>,
    long_jobs: Option<Sender<Job>>,
    digests: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

/// A pool's threads and the way to its queue.
fn start_pool(
    name: &'static str,
    count: NonZeroUsize,
) -> std::io::Result<(Sender<Job>, Vec<JoinHandle<()>>)> {
    let (jobs, queue) = bounded(JOBS_WAITING_MAX);
    let threads = (0..count.get())
        .map(|number| {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || work(&queue))
        })
        .collect::<Result<_, _>>()?;
    Ok((jobs, threads))
}

/// Gives a job to a pool; in place when its queue is full.
fn give(jobs: Option<&Sender<Job>>, job: Job) {
    let Some(jobs) = jobs else {
        return job();
    };
    if let Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) = jobs.try_send(job) {
        job();
    }
}

impl DiskThreads {
    /// Starts this many threads for syncs, so many for long jobs, and one for digests.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub(super) fn start(count: NonZeroUsize, long: NonZeroUsize) -> std::io::Result<Self> {
        let (jobs, mut threads) = start_pool("disk", count)?;
        let (long_jobs, more) = start_pool("copy", long)?;
        threads.extend(more);
        let (digests, one) = start_pool("digest", NonZeroUsize::MIN)?;
        threads.extend(one);
        Ok(Self {
            jobs: Some(jobs),
            long_jobs: Some(long_jobs),
            digests: Some(digests),
            threads,
        })
    }

    /// Has a job done: by a disk thread, or in place when the queue is full.
    pub(super) fn run(&self, job: Job) {
        give(self.jobs.as_ref(), job);
    }

    /// Has a job done that may take minutes. Nothing of [`Self::run`] waits for it.
    pub(super) fn run_long(&self, job: Job) {
        give(self.long_jobs.as_ref(), job);
    }

    /// Has a digest made: one after the other, and nothing else waits for it.
    pub(super) fn run_digest(&self, job: Job) {
        give(self.digests.as_ref(), job);
    }
}

impl Drop for DiskThreads {
    /// Waits until every job given is done.
    fn drop(&mut self) {
        self.jobs = None;
        self.long_jobs = None;
        self.digests = None;
        let own = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // The last owner may be a job: a thread cannot wait for itself.
            if thread.thread().id() != own && thread.join().is_err() {
                tracing::error!("a disk thread has panicked");
            }
        }
    }
}

fn work(queue: &Receiver<Job>) {
    while let Ok(job) = queue.recv() {
        // A bug in one job must not take the thread from all the others.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
            tracing::error!("a job on a disk thread panicked; this is a bug");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_job_is_done_before_the_pool_is_gone() {
        let pool = DiskThreads::start(NonZeroUsize::new(2).unwrap(), NonZeroUsize::MIN).unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..3 * JOBS_WAITING_MAX {
            let done = Arc::clone(&done);
            pool.run(Box::new(move || {
                done.fetch_add(1, Ordering::Relaxed);
            }));
        }
        drop(pool);
        assert_eq!(done.load(Ordering::Relaxed), 3 * JOBS_WAITING_MAX);
    }

    #[test]
    fn a_sync_does_not_wait_for_long_jobs() {
        let pool = DiskThreads::start(NonZeroUsize::MIN, NonZeroUsize::MIN).unwrap();
        let (synced, sync) = bounded::<()>(1);
        for _ in 0..8 {
            let sync = sync.clone();
            // Each lasts until the sync below is done and its end of the channel gone.
            let digest = sync.clone();
            pool.run_long(Box::new(move || {
                let _ = sync.recv();
            }));
            pool.run_digest(Box::new(move || {
                let _ = digest.recv();
            }));
        }
        pool.run(Box::new(move || drop(synced)));
    }

    #[test]
    fn a_panicking_job_leaves_the_thread_to_the_next() {
        let pool = DiskThreads::start(NonZeroUsize::MIN, NonZeroUsize::MIN).unwrap();
        let (sender, receiver) = bounded(1);
        pool.run(Box::new(|| panic!("on purpose")));
        pool.run(Box::new(move || sender.send(7).unwrap()));
        assert_eq!(receiver.recv().unwrap(), 7);
    }
}
