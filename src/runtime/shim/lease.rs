//! One connected daemon: its lease, the reports to it, the commands from it.
//!
//! Decides nothing; counts leases and carries lines. A daemon that sends what is not a command loses
//! its connection, and with it its lease.

use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio_util::codec::{FramedRead, LinesCodec};

use super::wire::{self, LINE_BYTES, Report};

/// Counts as one connected daemon for as long as it lives.
#[derive(Debug)]
pub struct Lease(watch::Sender<usize>);

impl Lease {
    /// Counts one more.
    pub fn begin(count: watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Serves one daemon until it leaves, or until the last report is sent.
///
/// Cancel safety: dropping it closes the connection and ends the lease.
pub async fn hold(
    mut stream: UnixStream,
    lease: Lease,
    mut reports: watch::Receiver<Report>,
    orders: mpsc::Sender<wire::Command>,
) {
    let (reading, mut writing) = stream.split();
    let mut lines = FramedRead::new(reading, LinesCodec::new_with_max_length(LINE_BYTES));
    reports.mark_changed();
    loop {
        tokio::select! {
            changed = reports.changed() => {
                if changed.is_err() {
                    break;
                }
                let report = reports.borrow_and_update().clone();
                let last = matches!(report, Report::Ended(_) | Report::Failed(_));
                let Ok(line) = wire::line(&report) else { break };
                if writing.write_all(&line).await.is_err() || last {
                    break;
                }
            }
            line = lines.next() => {
                let Some(Ok(line)) = line else { break };
                let Ok(command) = serde_json::from_str(&line) else { break };
                if orders.send(command).await.is_err() {
                    break;
                }
            }
        }
    }
    drop(lease);
}
