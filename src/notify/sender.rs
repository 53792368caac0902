//! One recipient: its queue, and the task that empties it.
//!
//! What cannot be sent is tried again with growing pauses, for a while; then it is given up and
//! counted. A message is tried before those behind it, so that they arrive in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use tokio::sync::Notify as Signal;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::links::Links;
use super::message::Message;
use super::{mail, render};
use crate::config::notify::{Notify, Recipient};
use crate::controller::status::NotifyStatus;
use crate::prober::call::{self, Call, Trust};
use crate::telemetry::metrics;

/// Messages that may wait: some rollouts of an evening. Beyond that the oldest goes.
const QUEUE: usize = 64;
/// Keys that are remembered, so that nothing is told twice.
const REMEMBERED: usize = 256;
/// How long one try may take.
const TRY_WITHIN: Duration = Duration::from_secs(20);
/// The first pause after a failure, and the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(60);
/// The longest pause that a recipient may ask for.
const PAUSE_ASKED: Duration = Duration::from_secs(10 * 60);
/// How long a message is tried: beyond that it is no news.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60 * 60);

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    sentence: String,
    /// Trying again changes nothing.
    for_good: bool,
    wait: Option<Duration>,
}

impl Failure {
    /// That may be over soon.
    pub fn for_now(sentence: String) -> Self {
        Self { sentence, for_good: false, wait: None }
    }

    /// That stays until somebody changes something.
    pub fn for_good(sentence: String) -> Self {
        Self { sentence, for_good: true, wait: None }
    }
}

/// One recipient. Cheap to clone.
#[derive(Clone)]
pub struct Sender(Arc<Inner>);

struct Inner {
    config: Notify,
    links: Option<Arc<Links>>,
    state: Mutex<State>,
    woken: Signal,
    stop: CancellationToken,
}

#[derive(Default)]
struct State {
    queue: VecDeque<(Instant, Arc<Message>)>,
    told: VecDeque<String>,
    sent: u64,
    lost: u64,
    /// Why the last try failed, and since when none succeeds.
    trouble: Option<(String, jiff::Timestamp)>,
}

impl Sender {
    /// Begins to empty a queue.
    pub fn start(config: Notify, links: Option<Arc<Links>>, shutdown: &CancellationToken) -> Self {
        let stop = shutdown.child_token();
        let (state, woken) = (Mutex::default(), Signal::new());
        let sender = Self(Arc::new(Inner { config, links, state, woken, stop: stop.clone() }));
        let this = sender.clone();
        tokio::spawn(async move { stop.run_until_cancelled(this.run()).await });
        sender
    }

    /// What it was configured as.
    pub fn config(&self) -> &Notify {
        &self.0.config
    }

    /// Ends it; what waits is not sent.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message, if it is wanted here and was not told already.
    pub fn offer(&self, message: &Arc<Message>) {
        let config = &self.0.config;
        let wanted = message.occasion.is_none_or(|one| config.occasions.contains(&one))
            && (config.services.is_empty() || config.services.contains(&message.service));
        if !wanted {
            return;
        }
        let mut state = self.state();
        if state.told.contains(&message.key) {
            return;
        }
        if state.told.len() >= REMEMBERED {
            state.told.pop_front();
        }
        state.told.push_back(message.key.clone());
        if state.queue.len() >= QUEUE {
            state.queue.pop_front();
            state.lost += 1;
            self.count("lost");
        }
        state.queue.push_back((Instant::now(), Arc::clone(message)));
        drop(state);
        self.0.woken.notify_one();
    }

    fn count(&self, result: &str) {
        let labels = [("recipient", self.0.config.name.as_str()), ("result", result)];
        metrics::count(&metrics::NOTIFICATIONS, &labels);
    }

    /// How it stands.
    pub fn status(&self) -> NotifyStatus {
        let state = self.state();
        NotifyStatus {
            name: self.0.config.name.clone(),
            kind: self.0.config.to.as_str().to_owned(),
            waiting: state.queue.len(),
            sent: state.sent,
            lost: state.lost,
            trouble: state.trouble.as_ref().map(|(why, _)| why.clone()),
            since: state.trouble.as_ref().map(|(_, since)| format!("{since:.0}")),
        }
    }

    async fn run(self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let Some((queued, message)) = self.state().queue.front().cloned() else {
                self.0.woken.notified().await;
                continue;
            };
            let result = self.attempt(&message).await;
            let late = queued.elapsed() >= GIVE_UP_AFTER;
            if result.as_ref().map_or_else(|failure| failure.for_good || late, |()| true) {
                let mut state = self.state();
                // The queue may have lost it meanwhile, when it was full.
                state.queue.pop_front_if(|(_, front)| Arc::ptr_eq(front, &message));
                if result.is_err() {
                    state.lost += 1;
                    drop(state);
                    self.count("lost");
                }
                pause = PAUSE_FIRST;
                continue;
            }
            let asked = result.err().and_then(|failure| failure.wait).unwrap_or_default();
            tokio::time::sleep(pause.max(asked.min(PAUSE_ASKED))).await;
            pause = (pause * 2).min(PAUSE_LAST);
        }
    }

    /// Sends a message now, once.
    pub async fn send_now(&self, message: &Message) -> Result<(), String> {
        self.attempt(message).await.map_err(|failure| failure.sentence)
    }

    async fn attempt(&self, message: &Message) -> Result<(), Failure> {
        let sent = self.deliver(message).await;
        let name = &self.0.config.name;
        let mut state = self.state();
        match &sent {
            Ok(()) => {
                state.sent += 1;
                if state.trouble.take().is_some() {
                    tracing::info!("[notify.{name}] takes messages again");
                }
            }
            Err(Failure { sentence, .. }) => {
                let since = state.trouble.as_ref().map(|(_, since)| *since);
                if state.trouble.as_ref().is_none_or(|(before, _)| before != sentence) {
                    tracing::warn!("[notify.{name}] takes no messages: {sentence}");
                }
                let since = since.unwrap_or_else(jiff::Timestamp::now);
                state.trouble = Some((sentence.clone(), since));
            }
        }
        drop(state);
        self.count(if sent.is_ok() { "sent" } else { "failed" });
        sent
    }

    fn buttons(&self, message: &Message) -> Vec<(super::Link, String)> {
        let Some(links) = &self.0.links else { return Vec::new() };
        let to = &self.0.config.name;
        let make = |link: &super::Link| {
            let (about, step) = (message.about, message.step);
            Some((*link, links.make(*link, &message.service, about, step, to)?))
        };
        message.links.iter().filter_map(make).collect()
    }

    async fn deliver(&self, message: &Message) -> Result<(), Failure> {
        let Notify { to, ca, .. } = &self.0.config;
        let links = self.buttons(message);
        let buttons: Vec<render::Button> =
            links.iter().map(|(link, url)| (link.label(), url.clone())).collect();
        let (url, body, headers) = match to {
            Recipient::Email(email) => {
                return mail::send(email, ca.as_ref(), render::mail(message, &buttons), TRY_WITHIN)
                    .await;
            }
            Recipient::Telegram { api, token, chat } => {
                let url = format!("{api}/bot{token}/sendMessage");
                (url, render::telegram(message, &buttons, chat), Vec::new())
            }
            Recipient::Slack(url) => (url.clone(), render::slack(message, &buttons), Vec::new()),
            Recipient::Discord(url) => {
                (url.clone(), render::discord(message, &buttons), Vec::new())
            }
            Recipient::Teams(url) => (url.clone(), render::teams(message, &buttons), Vec::new()),
            Recipient::Webhook { url, secret } => {
                let named: Vec<render::Button> =
                    links.iter().map(|(link, url)| (link.as_str(), url.clone())).collect();
                let id = message.key.replace('/', "-");
                let body = render::webhook(message, &named, &id);
                let now = jiff::Timestamp::now().as_second();
                let mut headers = vec![
                    ("x-switchback-event", message.word().to_owned()),
                    ("x-switchback-delivery", id),
                ];
                if let Some(secret) = secret {
                    headers.push(("x-switchback-signature", sign(secret, now, &body.to_string())));
                }
                (url.clone(), body, headers)
            }
        };
        let trust = match ca {
            Some(pem) => Trust::only(pem),
            None => Trust::system(),
        };
        let json = Some(body.to_string().into_bytes());
        let asked = Call { url: &url, json, headers: &headers, timeout: TRY_WITHIN };
        let answered = call::call(trust, asked).await.map_err(Failure::for_now)?;
        if answered.is_well() {
            return Ok(());
        }
        let (place, status) = (call::place(&url), answered.status);
        let said: String =
            answered.body.trim().chars().filter(|c| !c.is_control()).take(200).collect();
        // A server may say back what it was asked; the token is nobody's to read.
        let said = match to {
            Recipient::Telegram { token, .. } => said.replace(token.as_str(), "***"),
            _ => said,
        };
        let sentence = format!("{place} answered {status}: {said}");
        let sentence = sentence.trim_end_matches([':', ' ']).to_owned();
        // 408 and 429 ask to be asked again; any other 4xx says that this will never be taken.
        let for_good = (400..500).contains(&status) && !matches!(status, 408 | 425 | 429);
        Err(Failure { sentence, for_good, wait: answered.retry_after })
    }
}

/// `t=SECONDS,v1=HEX` of the HMAC-SHA256 of `SECONDS.BODY`.
fn sign(secret: &str, seconds: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{seconds}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_the_second_and_the_body() {
        // As openssl works it out:
        // printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac 'a-long-enough-key'
        let said = sign("a-long-enough-key", 1_700_000_000, "{\"a\":1}");
        assert_eq!(
            said,
            "t=1700000000,v1=187cd6ad74a206d6522d19fd846fd9e97ad7ace40c7dbd187f340a9bcf36f7e0"
        );
    }
}
