//! The store's own thread.
//!
//! Batches are written in the order in which they were handed in. The queue is bounded; when it is
//! full, because the disk hangs, a batch is refused at once instead of holding up its sender.

use std::time::Duration;

use rustix::process::nice;
use tokio::sync::{mpsc, oneshot};

use super::{Change, Store, StoreError};

/// Batches that may wait. A rollout writes a handful; a full queue means a disk that hangs.
const QUEUE: usize = 256;
/// How long a write that something waits for may take. A healthy disk needs some 10 ms.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far the store's thread steps back behind the others (`nice(2)`, of one thread on Linux), so that requests go
/// first where it shares a core with a worker: the kernel lets a thread of the same rank finish its turn, and
/// a write has several. With everything on one core and 20 writes a second, one request in a hundred waited
/// 3.0 times as long as without any, and 2.4 times at this rank (2.3 at 10). On a machine with ten times too
/// much to do it still gets its turn within a tenth of a second.
const NICE: i32 = 5;

type Answer = oneshot::Sender<Result<(), StoreError>>;

/// Hands batches to the store's thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    queue: mpsc::Sender<(Vec<Change>, Answer)>,
}

impl Writer {
    /// Starts the thread. It ends when the last `Writer` is gone and everything is written.
    pub fn start(
        mut store: Box<dyn Store>,
    ) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (queue, mut batches) = mpsc::channel::<(Vec<Change>, Answer)>(QUEUE);
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(move || {
            // Refused, it works as well.
            let _ = nice(NICE);
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI32, Ordering};

    use super::*;
    use crate::store::Everything;
    use rustix::process::getpriority_process;
    use rustix::thread::gettid;

    static RANK: AtomicI32 = AtomicI32::new(-1);

    #[derive(Debug)]
    struct Ranked;

    impl Store for Ranked {
        fn load(&mut self) -> Result<Everything, StoreError> {
            Ok(Everything::default())
        }

        fn write(&mut self, _: &[Change]) -> Result<(), StoreError> {
            let rank = getpriority_process(Some(gettid())).expect("a rank");
            RANK.store(rank, Ordering::Relaxed);
            Ok(())
        }
    }

    #[tokio::test]
    async fn requests_go_before_it_and_nobody_else_steps_back() {
        let ours = getpriority_process(Some(gettid())).expect("a rank");
        let (writer, thread) = Writer::start(Box::new(Ranked)).expect("a thread");
        writer.write(Vec::new()).await.expect("to write");
        assert_eq!(RANK.load(Ordering::Relaxed), (ours + NICE).min(19));
        assert_eq!(getpriority_process(Some(gettid())).expect("a rank"), ours);
        drop(writer);
        thread.join().expect("an end");
    }
}
