//! The one thread that writes the store, so that no async worker waits for the disk. Batches that
//! wait together share one flush.

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::{Batch, KvStore, StoreError, Tree};

/// Batches that wait for the thread: more than Raft ever has under way, so a full queue means that
/// the disk is behind, and proposals wait.
const QUEUE_BATCHES_MAX: usize = 256;
/// Batches that share one flush.
const GROUP_BATCHES_MAX: usize = 64;

/// The writer has ended with its process' shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store's writer has stopped")]
pub struct WriterGone;

struct Job {
    tree: Tree,
    batch: Batch,
    /// Told when the batch is durable; `None`: nobody waits for that.
    durable: Option<oneshot::Sender<()>>,
}

/// Hands batches to the thread, which ends when the last clone is gone.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the system has no thread left.
    pub fn start(store: Arc<dyn KvStore>) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE_BATCHES_MAX);
        thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || run(store.as_ref(), queue))?;
        Ok(Self { jobs })
    }

    /// Has a batch written after all earlier ones, without waiting for it.
    ///
    /// # Errors
    ///
    /// When the writer has stopped.
    pub async fn write(&self, tree: Tree, batch: Batch) -> Result<(), WriterGone> {
        let job = Job {
            tree,
            batch,
            durable: None,
        };
        self.jobs.send(job).await.map_err(|_| WriterGone)
    }

    /// Has a batch written and returns when it, and all before it, are durable. An empty batch
    /// just waits for those before.
    ///
    /// # Errors
    ///
    /// When the writer has stopped.
    pub async fn write_durably(&self, tree: Tree, batch: Batch) -> Result<(), WriterGone> {
        let (done, durable) = oneshot::channel();
        let job = Job {
            tree,
            batch,
            durable: Some(done),
        };
        self.jobs.send(job).await.map_err(|_| WriterGone)?;
        durable.await.map_err(|_| WriterGone)
    }
}

fn run(store: &dyn KvStore, mut queue: mpsc::Receiver<Job>) {
    let mut waiting = Vec::with_capacity(GROUP_BATCHES_MAX);
    while let Some(first) = queue.blocking_recv() {
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(job) = next.take() {
            if !job.batch.is_empty() {
                end_process_on_error(store.write(job.tree, job.batch));
            }
            waiting.extend(job.durable);
            taken += 1;
            if taken < GROUP_BATCHES_MAX {
                next = queue.try_recv().ok();
            }
        }
        if !waiting.is_empty() {
            end_process_on_error(store.flush());
            for durable in waiting.drain(..) {
                // Nobody waits any more: the caller was cancelled; the batch is durable all the same.
                let _ = durable.send(());
            }
        }
    }
    end_process_on_error(store.flush());
}

/// INV-10: after a failed write or sync nobody knows what is on the media. The process ends; the
/// next one opens what is there.
fn end_process_on_error(result: Result<(), StoreError>) {
    if let Err(error) = result {
        tracing::error!(%error, "the store failed: this manager ends now");
        std::process::abort();
    }
}
