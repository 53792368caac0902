//! Tells people and programs what happens, and takes what they answer by a link.
//!
//! A wing beside the control plane: it follows the events that the driver tells anyway and asks for
//! the figures, and the driver knows nothing of it. Each recipient has a queue and a task of its own:
//! one that is down holds up no other, and no rollout.
//!
//! Invariants: a queue is bounded, and what falls off is counted; one occasion of a rollout is told to
//! a recipient once; a link is signed, expires, and acts once, also over a restart; nothing here says
//! an address or a key of a recipient.

mod act;
mod follow;
mod links;
mod mail;
mod message;
mod render;
mod sender;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::config::notify::Notify;
use crate::controller::handle::Handle;
use crate::controller::status::NotifyStatus;
use crate::store::records::LinksRecord;
use crate::store::writer::Writer;
use crate::telemetry::audit::Audit;

pub use act::Acted;
use links::Links;
pub use links::{Claims, Link, LinkRefused};
use message::Message;
use sender::Sender;

/// How often it is looked whether everything was sent.
const FLUSH_LOOK: Duration = Duration::from_millis(20);

/// What the wing is made of.
pub struct Parts {
    /// How the driver is asked.
    pub handle: Handle,
    /// Who is told.
    pub recipients: Vec<Notify>,
    /// Where links are reached, and how long they can be used.
    pub links: Option<(String, Duration)>,
    /// The key of links, and which were used; made where there is none.
    pub record: Option<LinksRecord>,
    /// Where that is written.
    pub writer: Writer,
    /// Where the ends of rollouts and the use of links are written down.
    pub audit: Audit,
}

/// Who tells. Cheap to clone.
#[derive(Clone)]
pub struct Notifier(Arc<Inner>);

struct Inner {
    handle: Handle,
    senders: Mutex<BTreeMap<String, Sender>>,
    links: Option<Arc<Links>>,
    shutdown: CancellationToken,
}

impl std::fmt::Debug for Notifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Notifier")
    }
}

impl Notifier {
    /// Begins to follow what happens, until `shutdown`. To be called on a runtime, before the driver
    /// runs.
    #[must_use]
    pub fn start(parts: Parts, shutdown: CancellationToken) -> Self {
        let Parts { handle, recipients, links, record, writer, audit } = parts;
        let links = links.and_then(|(url, expiry)| {
            let links = Links::new(url, expiry, record, writer).map(Arc::new);
            if links.is_none() {
                tracing::error!("links cannot be signed: messages go without them");
            }
            links
        });
        let notifier = Self(Arc::new(Inner {
            handle: handle.clone(),
            senders: Mutex::default(),
            links,
            shutdown: shutdown.clone(),
        }));
        notifier.configure(recipients);
        let follower = follow::Follower::new(handle, notifier.clone(), audit);
        tokio::spawn(async move { shutdown.run_until_cancelled(follower.run()).await });
        notifier
    }

    /// Who is told from now on. Those that stay as they are keep what waits for them.
    pub fn configure(&self, recipients: Vec<Notify>) {
        let mut senders = self.senders();
        let mut before = std::mem::take(&mut *senders);
        for config in recipients {
            let name = config.name.clone();
            let sender = match before.remove(&name) {
                Some(same) if *same.config() == config => same,
                _ => Sender::start(config, self.0.links.clone(), &self.0.shutdown),
            };
            senders.insert(name, sender);
        }
        for gone in before.into_values() {
            gone.stop();
        }
    }

    fn senders(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Sender>> {
        self.0.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is anybody to tell.
    fn tells_anybody(&self) -> bool {
        !self.senders().is_empty()
    }

    /// Hands a message to everybody who wants it.
    fn tell(&self, message: Message) {
        let message = Arc::new(message);
        for sender in self.senders().values() {
            sender.offer(&message);
        }
    }

    /// Waits until what is queued was sent, for who takes messages; others are not waited for.
    pub async fn flush(&self, longest: Duration) {
        let waits = |one: &NotifyStatus| one.waiting > 0 && one.trouble.is_none();
        let sent = async {
            while self.status().iter().any(waits) {
                tokio::time::sleep(FLUSH_LOOK).await;
            }
        };
        // What is not sent by then is lost with this process.
        let _in_time = tokio::time::timeout(longest, sent).await;
    }

    /// How everybody who is told stands.
    #[must_use]
    pub fn status(&self) -> Vec<NotifyStatus> {
        self.senders().values().map(Sender::status).collect()
    }

    /// Sends a message that says it is a test, to one or to all, and tells what came of it: a name
    /// and, where it failed, why.
    pub async fn test(&self, name: Option<&str>) -> Result<Vec<(String, Option<String>)>, String> {
        let senders: Vec<(String, Sender)> = self
            .senders()
            .iter()
            .filter(|(known, _)| name.is_none_or(|name| name == *known))
            .map(|(known, sender)| (known.clone(), sender.clone()))
            .collect();
        if senders.is_empty() {
            let names: Vec<String> = self.senders().keys().cloned().collect();
            return Err(match name {
                Some(name) if !names.is_empty() => {
                    format!("nobody is called {name:?} in [notify]: {}", names.join(", "))
                }
                _ => "nobody is told anything: add a [notify.NAME] to the configuration, then \
                      `switchback reload`"
                    .to_owned(),
            });
        }
        let message = Arc::new(Message::test());
        let sent = senders.into_iter().map(|(name, sender)| {
            let message = Arc::clone(&message);
            async move { (name, sender.send_now(&message).await.err()) }
        });
        Ok(futures_util::future::join_all(sent).await)
    }

    /// Reads a link without using it.
    pub fn read(&self, token: &str) -> Result<Claims, LinkRefused> {
        self.links()?.read(token)
    }

    /// Uses a link: does what it says, once.
    ///
    /// Cancel safety: once it was accepted, what it says is done regardless.
    pub async fn use_link(&self, token: &str) -> Result<Acted, LinkRefused> {
        let claims = self.links()?.take(token).await?;
        Ok(act::act(&self.0.handle, claims).await)
    }

    fn links(&self) -> Result<&Arc<Links>, LinkRefused> {
        self.0.links.as_ref().ok_or(LinkRefused::Forged)
    }
}
