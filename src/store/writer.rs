//! The store's own thread.
//!
//! Batches are written in the order in which they were handed in. The queue is bounded; when it is
//! full, because the disk hangs, a batch is refused at once instead of holding up its sender.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Change, Store, StoreError};

/// Batches that may wait. A rollout writes a handful; a full queue means a disk that hangs.
const QUEUE: usize = 256;
/// How long a write that something waits for may take. A healthy disk needs some 10 ms.
const PATIENCE: Duration = Duration::from_secs(5);

type Answer = oneshot::Sender<Result<(), StoreError>>;

/// Hands batches to the store's thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<(Vec<Change>, Answer)>,
}

impl Writer {
    /// Starts the thread, which does `first` before anything else. It ends when the last `Writer` is
    /// gone and everything is written.
    pub fn start(
        mut store: Box<dyn Store>,
        first: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (queue, mut batches) = mpsc::channel::<(Vec<Change>, Answer)>(QUEUE);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            first();
            let mut trouble = None;
            while let Some((batch, answer)) = batches.blocking_recv() {
                let result = store.write(&batch);
                // Tried again every second: the same trouble is told once.
                let now = result.as_ref().err().map(ToString::to_string);
                match (&trouble, &now) {
                    (before, Some(error)) if before.as_ref() != Some(error) => {
                        tracing::error!(%error, "state not saved");
                    }
                    (Some(_), None) => tracing::info!("state saved again"),
                    _ => {}
                }
                trouble = now;
                // Nobody may be waiting any more; the write counts all the same.
                let _ = answer.send(result);
            }
        })?;
        Ok((Self { queue }, thread))
    }

    /// Hands a batch in and returns at once; the answer says whether it was written.
    ///
    /// Cancel safety: dropping the answer does not take the batch back.
    pub fn write(
        &self,
        batch: Vec<Change>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static {
        let (answer, written) = oneshot::channel();
        let queued = self.queue.try_send((batch, answer));
        async move {
            queued.map_err(|_| StoreError::Slow(PATIENCE))?;
            match tokio::time::timeout(PATIENCE, written).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(StoreError::Write("the store has stopped".to_owned())),
                Err(_) => Err(StoreError::Slow(PATIENCE)),
            }
        }
    }
}
