//! What the keeper has done by others: orders, questions, writing; and what came of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::ChallengeType;
use tokio::sync::oneshot;

use super::keeper::Keeper;
use super::managed::Managed;
use super::names::Signer;
use super::order::{Failed, Job, obtain};
use super::{ask, local};
use crate::config::scalar;
use crate::config::tls::{Acme, Challenge};
use crate::proxy::tls::Pair;
use crate::routing::table::HostPattern;
use crate::store::records::{CertificateRecord, Hidden};
use crate::store::{Change, StoreError};
use crate::telemetry::metrics::{self, count};

/// Orders at a time: an authority is not to be overrun at the first start with many names.
const AT_ONCE: usize = 4;
/// And those that visitors wait for.
const ON_DEMAND_AT_ONCE: usize = 16;
/// Names on demand, and names refused, that are remembered.
const REMEMBERED: usize = 10_000;
/// From one line of the log about such names to the next, in seconds.
const TOLD_AGAIN: i64 = 10;
/// How long a refusal holds, in seconds.
const REFUSED_FOR: i64 = 60;
/// How long an order may take at all; a DNS record may need minutes to be seen.
const ORDER_PATIENCE: Duration = Duration::from_secs(20 * 60);
/// When to ask again an authority that did not answer when to renew, in seconds.
const ASK_AGAIN: i64 = 6 * 60 * 60;

/// What came of a job.
#[derive(Debug)]
pub enum Outcome {
    /// Of an order.
    Ordered(String, Result<(String, String), Failed>),
    /// The operator's app does not want a certificate for this name, or cannot be asked.
    Refused(String, Option<String>),
    /// What the authority says about renewal: a window, and when to ask again.
    Window(String, Result<((i64, i64), Duration), instant_acme::Error>),
    /// A certificate was written.
    Saved(String, Result<(), StoreError>),
}

impl Keeper {
    /// Starts what is due.
    pub(super) fn start_jobs(&mut self) {
        let now = Self::now();
        let due: Vec<(String, Signer)> = self
            .names
            .iter()
            .filter(|(_, managed)| !managed.busy && managed.next <= now)
            .map(|(name, managed)| (name.clone(), managed.signer))
            .collect();
        for (name, signer) in due {
            match signer {
                Signer::Local => self.sign(&name),
                Signer::Acme if self.busy() < AT_ONCE => self.order(&name),
                Signer::Acme => {}
            }
        }
        let curious: Vec<String> = self
            .names
            .iter()
            .filter(|(_, managed)| {
                managed.signer == Signer::Acme
                    && managed.pair.is_some()
                    && !managed.busy
                    && managed.ask_window <= now
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in curious {
            self.ask_window(&name, now);
        }
    }

    fn busy(&self) -> usize {
        self.names.values().filter(|managed| managed.busy).count()
    }

    fn order(&mut self, name: &str) {
        let Some(acme) = self.config.acme.clone() else { return };
        let (desk, writer) = (Arc::clone(&self.desk), self.writer.clone());
        let tls = Arc::clone(&self.tls);
        let listens = self.listens;
        let Some(managed) = self.names.get_mut(name) else { return };
        managed.busy = true;
        let ways = ways(&acme, name, listens, managed.failures);
        let replaces = managed.window.and_then(|_| managed.identifier());
        let on_demand = managed.on_demand;
        let name = name.to_owned();
        tracing::info!(name, "asking {} for a certificate", acme.directory);
        self.jobs.spawn(async move {
            if let Some(url) = acme.ask.as_ref().filter(|_| on_demand) {
                match ask::ask(url, &name).await {
                    Ok(true) => {}
                    Ok(false) => return Outcome::Refused(name, None),
                    Err(trouble) => return Outcome::Refused(name, Some(trouble)),
                }
            }
            let account = desk.lock().await.account(&acme, &writer).await;
            let ordered = async {
                let account = account?;
                let (hook, wait, profile) = (acme.dns_hook, acme.dns_wait, acme.profile);
                let name = name.clone();
                let job = Job { account, name, ways, tls, hook, wait, profile, replaces };
                let ordered = tokio::time::timeout(ORDER_PATIENCE, Box::pin(obtain(&job))).await;
                ordered.unwrap_or(Err(Failed::Slow(ORDER_PATIENCE)))
            };
            let ordered = ordered.await;
            if ordered.as_ref().is_err_and(Failed::is_unknown_account) {
                desk.lock().await.forget();
            }
            Outcome::Ordered(name, ordered)
        });
    }

    fn ask_window(&mut self, name: &str, now: i64) {
        let Some(acme) = self.config.acme.clone() else { return };
        let Some(managed) = self.names.get_mut(name) else { return };
        // Until there is an answer.
        managed.ask_window = now + ASK_AGAIN;
        let Some(identifier) = managed.identifier() else { return };
        let (desk, writer) = (Arc::clone(&self.desk), self.writer.clone());
        let name = name.to_owned();
        self.jobs.spawn(async move {
            let account = desk.lock().await.account(&acme, &writer).await;
            let answer = async {
                let (info, again) = account?.renewal_info(&identifier).await?;
                let window = &info.suggested_window;
                Ok(((window.start.unix_timestamp(), window.end.unix_timestamp()), again))
            };
            Outcome::Window(name, answer.await)
        });
    }

    /// Signs with the CA of this machine.
    fn sign(&mut self, name: &str) {
        let now = SystemTime::now();
        let signed = match &self.authority {
            Some(authority) => local::sign(authority, name, now),
            None => local::make(now).and_then(|authority| {
                let signed = local::sign(&authority, name, now);
                let written =
                    self.writer.write(vec![Change::Authority(Box::new(authority.clone()))]);
                self.jobs
                    .spawn(async move { Outcome::Saved("the local CA".to_owned(), written.await) });
                self.authority = Some(authority);
                self.lay_out();
                signed
            }),
        };
        let signed = signed.map_err(Failed::Key);
        self.ordered(name.to_owned(), signed);
    }

    pub(super) fn lay_out(&self) {
        if let Some(authority) = &self.authority {
            local::lay_out(authority, &self.dir);
        }
    }

    /// A visitor asks for a name that has no certificate.
    pub(super) fn asked_for(&mut self, name: &str, decided: oneshot::Sender<()>) {
        let now = Self::now();
        let by_ask = self.config.acme.as_ref().is_some_and(|acme| acme.ask.is_some());
        // Whoever drops `decided` has decided against it.
        match self.names.get_mut(name) {
            Some(known) if known.busy => known.waiting.push(decided),
            Some(_) => {}
            None if !by_ask || !is_plausible(name) => {}
            None if self.refused.get(name).is_some_and(|until| *until > now) => {}
            None => {
                if self.busy() >= ON_DEMAND_AT_ONCE || self.names.len() >= REMEMBERED {
                    self.trouble(name, "too many names at a time: not now", now);
                    return;
                }
                let mut managed = Managed::new(Signer::Acme, None, now, 0.0);
                managed.on_demand = true;
                managed.waiting.push(decided);
                self.names.insert(name.to_owned(), managed);
                self.order(name);
            }
        }
    }

    /// Tells of a trouble with a name on demand, once in a while: visitors bring as many as they like.
    fn trouble(&mut self, name: &str, trouble: &str, now: i64) {
        if self.told_trouble.is_none_or(|told| now - told >= TOLD_AGAIN) {
            self.told_trouble = Some(now);
            tracing::warn!(name, "no certificate on demand: {trouble}");
        }
    }

    /// Takes what came of a job.
    pub(super) fn done(&mut self, outcome: Outcome) {
        let now = Self::now();
        match outcome {
            Outcome::Ordered(name, ordered) => {
                let result = if ordered.is_ok() { "ok" } else { "failed" };
                count(&metrics::ORDERS, &[("result", result)]);
                self.ordered(name, ordered);
            }
            Outcome::Refused(name, trouble) => {
                if let Some(trouble) = trouble {
                    self.trouble(&name, &trouble, now);
                }
                self.names.remove(&name);
                if self.refused.len() >= REMEMBERED {
                    self.refused.retain(|_, until| *until > now);
                }
                if self.refused.len() < REMEMBERED {
                    self.refused.insert(name, now + REFUSED_FOR);
                }
            }
            Outcome::Window(name, answer) => {
                let Some(managed) = self.names.get_mut(&name) else { return };
                match answer {
                    Ok((window, again)) => managed.told(window, again, now, fastrand::f64()),
                    Err(instant_acme::Error::Unsupported(_)) => managed.ask_window = i64::MAX,
                    Err(error) => tracing::debug!(name, %error, "when to renew is not known"),
                }
            }
            Outcome::Saved(_, Ok(())) => {}
            Outcome::Saved(name, Err(error)) => {
                tracing::warn!(name, %error, "not saved: it is asked for again after a restart");
            }
        }
    }

    fn ordered(&mut self, name: String, ordered: Result<(String, String), Failed>) {
        let now = Self::now();
        let Some(managed) = self.names.get_mut(&name) else { return };
        managed.busy = false;
        let pair = ordered.and_then(|(chain, key)| {
            let pair = Pair::parse(&chain, &key, "what came")?;
            Ok((Arc::new(pair), chain, key))
        });
        let (pair, chain, key) = match pair {
            Ok(pair) => pair,
            Err(error) => {
                let mut limited = false;
                if managed.signer == Signer::Acme {
                    limited = error.is_limited();
                }
                managed.failed(error.to_string(), limited, now, self.times.first_pause);
                tracing::warn!(name, attempts = managed.failures, "no certificate: {error}");
                return;
            }
        };
        let source = managed.signer.as_str().to_owned();
        let waiting = std::mem::take(&mut managed.waiting);
        managed.have(pair, now, fastrand::f64());
        let until = managed.status(&name, now).not_after.unwrap_or_default();
        tracing::info!(name, "has a certificate until {until}");
        let record = CertificateRecord { name: name.clone(), source, chain, key: Hidden(key) };
        self.records.insert(name.clone(), record.clone());
        let written = self.writer.write(vec![Change::Certificate(Box::new(record))]);
        self.jobs.spawn(async move { Outcome::Saved(name, written.await) });
        self.put();
        for decided in waiting {
            // A visitor who went away.
            let _ = decided.send(());
        }
    }
}

/// How it can be shown that a name is ours, best first; another one comes first after each failure.
fn ways(acme: &Acme, name: &str, listens: (bool, bool), failures: u32) -> Vec<ChallengeType> {
    let (http, https) = listens;
    let mut ways = match acme.challenge {
        _ if name.starts_with("*.") => vec![ChallengeType::Dns01],
        Challenge::Http => vec![ChallengeType::Http01],
        Challenge::TlsAlpn => vec![ChallengeType::TlsAlpn01],
        Challenge::Dns => vec![ChallengeType::Dns01],
        Challenge::Auto => {
            let all = [
                (http, ChallengeType::Http01),
                (https, ChallengeType::TlsAlpn01),
                (!acme.dns_hook.is_empty(), ChallengeType::Dns01),
            ];
            all.into_iter().filter(|(can, _)| *can).map(|(_, way)| way).collect()
        }
    };
    if !ways.is_empty() {
        let turn = failures as usize % ways.len();
        ways.rotate_left(turn);
    }
    ways
}

/// Whether an authority could sign this: a name of at least two labels, and no address.
fn is_plausible(name: &str) -> bool {
    let is_name = matches!(scalar::host(name), Ok(HostPattern::Exact(ref exact)) if exact == name);
    let is_address = name.parse::<std::net::IpAddr>().is_ok();
    is_name && !is_address && name.contains('.') && !name.ends_with(".localhost")
}
