//! One name that needs a certificate: what there is, what comes next, what is wrong.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::CertificateIdentifier;
use tokio::sync::oneshot;

use super::names::Signer;
use super::schedule;
use crate::model::certificate::CertificateStatus;
use crate::proxy::tls::{Facts, Pair};

/// A pause that is worth it when the authority has enough of us.
const LIMITED: Duration = Duration::from_secs(60 * 60);

/// A name that needs a certificate. Moments are in seconds since the Unix epoch.
#[derive(Debug)]
pub struct Managed {
    /// Who signs.
    pub signer: Signer,
    /// What there is.
    pub pair: Option<Arc<Pair>>,
    /// Whether nobody configured it: a visitor asked for it.
    pub on_demand: bool,
    /// Whether a job is under way.
    pub busy: bool,
    /// When to order.
    pub next: i64,
    /// When to ask the authority when to renew.
    pub ask_window: i64,
    /// What it answered last.
    pub window: Option<(i64, i64)>,
    /// Failures in a row.
    pub failures: u32,
    /// The last of them.
    pub trouble: Option<String>,
    /// Handshakes that wait.
    pub waiting: Vec<oneshot::Sender<()>>,
}

impl Managed {
    /// A name, with what the store had.
    #[must_use]
    pub fn new(signer: Signer, pair: Option<Arc<Pair>>, now: i64, chance: f64) -> Self {
        let mut managed = Self {
            signer,
            pair: None,
            on_demand: false,
            busy: false,
            next: now,
            ask_window: now,
            window: None,
            failures: 0,
            trouble: None,
            waiting: Vec::new(),
        };
        if let Some(pair) = pair {
            managed.have(pair, now, chance);
        }
        managed
    }

    /// There is a certificate.
    pub fn have(&mut self, pair: Arc<Pair>, now: i64, chance: f64) {
        let Facts { not_before, not_after, .. } = pair.facts;
        self.next = schedule::renewal(not_before, not_after, chance);
        self.ask_window = now;
        self.window = None;
        self.failures = 0;
        self.trouble = None;
        self.pair = Some(pair);
        self.waiting.clear();
    }

    /// It could not be had.
    pub fn failed(&mut self, trouble: String, limited: bool, now: i64, first: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.trouble = Some(trouble);
        let pause = schedule::pause(self.failures, first);
        let pause = if limited { pause.max(LIMITED) } else { pause };
        self.next = now.saturating_add(i64::try_from(pause.as_secs()).unwrap_or(i64::MAX));
        self.waiting.clear();
    }

    /// The authority says when to renew, and when to ask again.
    pub fn told(&mut self, window: (i64, i64), again: Duration, now: i64, chance: f64) {
        if self.window != Some(window) {
            self.window = Some(window);
            // While it fails, the pause decides.
            if self.failures == 0 {
                self.next = schedule::within(window.0, window.1, chance);
            }
        }
        // RFC 9773 leaves it to us when it is unreasonable: between a minute and a day.
        self.ask_window = now + i64::try_from(again.as_secs()).unwrap_or(0).clamp(60, 86_400);
    }

    /// How the authority calls the certificate that there is (RFC 9773, 4.1).
    #[must_use]
    pub fn identifier(&self) -> Option<CertificateIdentifier<'static>> {
        let facts = &self.pair.as_ref()?.facts;
        let encode = |bytes: &[u8]| Cow::Owned(BASE64_URL_SAFE_NO_PAD.encode(bytes));
        (!facts.authority.is_empty()).then(|| CertificateIdentifier {
            authority_key_identifier: encode(&facts.authority),
            serial: encode(&facts.serial),
        })
    }

    /// For people.
    #[must_use]
    pub fn status(&self, name: &str, now: i64) -> CertificateStatus {
        let mut status = match &self.pair {
            Some(pair) => status_of(&pair.facts, self.signer.as_str(), now),
            None => CertificateStatus {
                names: vec![name.to_owned()],
                source: self.signer.as_str().to_owned(),
                state: "waiting".to_owned(),
                not_after: None,
                not_after_seconds: None,
                days_left: None,
                note: None,
            },
        };
        if let Some(trouble) = &self.trouble {
            status.state = "failing".to_owned();
            let old = match &status.not_after {
                Some(until) => format!("; the former one serves until {until}"),
                None => "; HTTPS is not served for it yet".to_owned(),
            };
            let next = moment(self.next);
            status.note = Some(format!(
                "no certificate for {name}, after {} attempts: {trouble}; tried again at {next}{old}",
                self.failures
            ));
        }
        status
    }
}

/// What is known of a certificate that serves. Its note tells of a near expiry.
#[must_use]
pub fn status_of(facts: &Facts, source: &str, now: i64) -> CertificateStatus {
    let days = schedule::days(facts.not_after, now);
    let near = schedule::is_near(facts.not_before, facts.not_after, now);
    let note = near.then(|| {
        let names = facts.names.join(", ");
        let when = match days {
            i64::MIN..0 => "has expired".to_owned(),
            0 => "expires today".to_owned(),
            1 => "expires tomorrow".to_owned(),
            days => format!("expires in {days} days"),
        };
        format!("the certificate for {names} ({source}) {when}: renew it")
    });
    CertificateStatus {
        names: facts.names.clone(),
        source: source.to_owned(),
        state: "serving".to_owned(),
        not_after: Some(moment(facts.not_after)),
        not_after_seconds: Some(facts.not_after),
        days_left: Some(days),
        note,
    }
}

fn moment(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "never".to_owned(), |at| at.to_string())
}
