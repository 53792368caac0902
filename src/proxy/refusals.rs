//! What is said about refusals: one line per reason and while, however many there were.

use std::net::SocketAddr;

use crate::telemetry::traffic::Reason;

/// Refusals since the last line.
#[derive(Debug)]
pub struct Refusals {
    counts: [u64; Reason::ALL.len()],
    last: Option<SocketAddr>,
}

impl Default for Refusals {
    fn default() -> Self {
        Self { counts: [0; Reason::ALL.len()], last: None }
    }
}

impl Refusals {
    /// One more.
    pub fn note(&mut self, reason: Reason, peer: SocketAddr) {
        self.counts[reason as usize] += 1;
        self.last = Some(peer);
    }

    /// Says how many there were since it last did, and forgets them.
    pub fn tell(&mut self) {
        let Some(last) = self.last.take() else { return };
        for reason in Reason::ALL {
            let count = std::mem::take(&mut self.counts[reason as usize]);
            if count > 0 {
                tracing::info!(reason = reason.label(), count, %last, "clients were refused");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_is_told_once() {
        let mut refusals = Refusals::default();
        refusals.note(Reason::Host, SocketAddr::from(([127, 0, 0, 1], 1)));
        assert_eq!(refusals.counts.iter().sum::<u64>(), 1);
        refusals.tell();
        assert_eq!((refusals.counts.iter().sum::<u64>(), refusals.last), (0, None));
    }
}
