//! What happened, numbered, for those who follow.
//!
//! Keeps the last few hundred events for those who come back with a `Last-Event-ID`, and sends each
//! to whoever listens. A listener that is too slow loses the oldest, never holds anyone up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::broadcast;

use super::status::EventRecord;
use crate::model::id::{RolloutId, ServiceName};
use crate::store::records::RecordedEvent;

/// Events that are remembered and that a slow listener may fall behind by.
const REMEMBERED: usize = 512;

/// The journal. Owned by the driver.
#[derive(Debug)]
pub struct Journal {
    last: u64,
    recent: Arc<Mutex<VecDeque<EventRecord>>>,
    sender: broadcast::Sender<EventRecord>,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A rollout entered a phase.
    Phase,
    /// An instance came, went, or changed its health.
    Instance,
    /// A runtime came or went.
    Runtime,
    /// The configuration was read.
    Config,
    /// Anything else worth a sentence.
    Note,
}

impl Kind {
    /// The word in the JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Phase => "phase",
            Self::Instance => "instance",
            Self::Runtime => "runtime",
            Self::Config => "config",
            Self::Note => "note",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Happening<'a> {
    /// What kind.
    pub kind: Kind,
    /// To which service.
    pub service: Option<&'a ServiceName>,
    /// In which rollout.
    pub rollout: Option<RolloutId>,
    /// The phase entered and the canary's weight in percent.
    pub phase: Option<(&'static str, f64)>,
    /// One sentence.
    pub message: String,
}

impl Journal {
    /// An empty journal whose numbers go on after `last`.
    #[must_use]
    pub fn new(last: u64) -> Self {
        let (sender, _) = broadcast::channel(REMEMBERED);
        Self { last, recent: Arc::default(), sender }
    }

    /// The ends that a handle needs.
    #[must_use]
    pub fn ends(&self) -> (broadcast::Sender<EventRecord>, Arc<Mutex<VecDeque<EventRecord>>>) {
        (self.sender.clone(), Arc::clone(&self.recent))
    }

    /// Writes an event down and tells whoever listens. Returns it as a rollout records it.
    pub fn tell(&mut self, happening: Happening<'_>) -> RecordedEvent {
        self.last += 1;
        let at = jiff::Timestamp::now();
        let record = EventRecord {
            id: self.last,
            at: format!("{at:.3}"),
            service: happening.service.map(ToString::to_string),
            rollout: happening.rollout.map(|id| id.0),
            kind: happening.kind.as_str().to_owned(),
            phase: happening.phase.map(|(phase, _)| phase.to_owned()),
            weight: happening.phase.map(|(_, weight)| weight),
            message: happening.message,
        };
        tracing::info!(
            event = record.id,
            service = record.service.as_deref(),
            rollout = record.rollout,
            phase = record.phase.as_deref(),
            "{}",
            record.message
        );
        let recorded = RecordedEvent {
            id: record.id,
            at: u64::try_from(at.as_millisecond()).unwrap_or(0),
            phase: record.phase.clone(),
            weight: record.weight,
            message: record.message.clone(),
        };
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(record.clone());
        drop(recent);
        // Nobody listening is fine.
        let _ = self.sender.send(record);
        recorded
    }
}
