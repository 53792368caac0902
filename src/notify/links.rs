//! Links by which a person acts from a message: `URL/links/TOKEN`.
//!
//! A token is what shall be done, and its HMAC-SHA256 under a key that never leaves the state. It
//! holds for one rollout, at one step; it expires; and it acts once: what was used is written down
//! before anything is done, and remembered until it would have expired anyway.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use crate::model::id::{RevisionId, RolloutId};
use crate::store::Change;
use crate::store::records::{Hidden, LinksRecord};
use crate::store::writer::Writer;

/// What a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// The canary goes on from where it waits.
    Promote,
    /// The canary is taken back, or, when it is stable already, the former revision returns.
    Rollback,
    /// The promotion stands.
    Confirm,
}

impl Link {
    /// The verb of the command line that does the same.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Confirm => "confirm",
        }
    }

    /// What stands on a button.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Promote => "Approve",
            Self::Rollback => "Roll back",
            Self::Confirm => "Confirm",
        }
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// What is done.
    #[serde(rename = "a")]
    pub link: Link,
    /// To which service.
    #[serde(rename = "s")]
    pub service: String,
    /// In which rollout.
    #[serde(rename = "r")]
    pub rollout: RolloutId,
    /// About which revision.
    #[serde(rename = "v")]
    pub revision: RevisionId,
    /// At which step, counted from 1, where it matters.
    #[serde(rename = "n", skip_serializing_if = "Option::is_none", default)]
    pub step: Option<usize>,
    /// Until when, in seconds since the Unix epoch.
    #[serde(rename = "e")]
    pub until: u64,
    /// To whom it was sent.
    #[serde(rename = "t")]
    pub to: String,
    /// What tells it from all others.
    #[serde(rename = "i")]
    pub id: String,
}

/// Why a link does nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkRefused {
    /// It is none of ours, or was changed.
    #[error("this link is not one of ours, or a part of it is missing")]
    Forged,
    /// Its time is over.
    #[error(
        "this link has expired: use `switchback` on the server, or the link of a newer message"
    )]
    Expired,
    /// It was used.
    #[error("this link was used already, and acts once")]
    Used,
    /// That it is used cannot be written down.
    #[error("this link was not used, because that cannot be written down: {0}")]
    Unsaved(String),
}

/// Makes links and takes them back.
pub(super) struct Links {
    url: String,
    expiry: Duration,
    key: hmac::Key,
    record: Mutex<LinksRecord>,
    writer: Writer,
}

impl Links {
    /// With the key of the state, or a new one; none when that cannot be made.
    pub(super) fn new(
        url: String,
        expiry: Duration,
        record: Option<LinksRecord>,
        writer: Writer,
    ) -> Option<Self> {
        let is_new = record.is_none();
        let mut record = match record {
            Some(record) => record,
            None => {
                LinksRecord { key: Hidden(BASE64.encode(random::<32>()?)), used: BTreeMap::new() }
            }
        };
        let now = seconds();
        record.used.retain(|_, until| *until >= now);
        let bytes = BASE64.decode(&record.key.0).ok()?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        if is_new {
            // Not waited for: links that are lost with it are none of a later daemon's.
            drop(tokio::spawn(writer.write(vec![Change::Links(Box::new(record.clone()))])));
        }
        Some(Self { url, expiry, key, record: Mutex::new(record), writer })
    }

    /// A link; none when the system has no random numbers.
    pub(super) fn make(
        &self,
        link: Link,
        service: &str,
        about: (RolloutId, RevisionId),
        step: Option<usize>,
        to: &str,
    ) -> Option<String> {
        let claims = Claims {
            link,
            service: service.to_owned(),
            rollout: about.0,
            revision: about.1,
            step,
            until: seconds() + self.expiry.as_secs(),
            to: to.to_owned(),
            id: BASE64.encode(random::<12>()?),
        };
        Some(format!("{}/links/{}", self.url, self.sign(&claims)))
    }

    fn sign(&self, claims: &Claims) -> String {
        // Plain data with text keys: this cannot fail.
        let said = BASE64.encode(serde_json::to_vec(claims).unwrap_or_default());
        let tag = hmac::sign(&self.key, said.as_bytes());
        format!("{said}.{}", BASE64.encode(tag.as_ref()))
    }

    /// What a token says, if it is ours and could still be used.
    pub(super) fn read(&self, token: &str) -> Result<Claims, LinkRefused> {
        let (said, tag) = token.split_once('.').ok_or(LinkRefused::Forged)?;
        let tag = BASE64.decode(tag).map_err(|_| LinkRefused::Forged)?;
        hmac::verify(&self.key, said.as_bytes(), &tag).map_err(|_| LinkRefused::Forged)?;
        let said = BASE64.decode(said).map_err(|_| LinkRefused::Forged)?;
        let claims: Claims = serde_json::from_slice(&said).map_err(|_| LinkRefused::Forged)?;
        if claims.until < seconds() {
            return Err(LinkRefused::Expired);
        }
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if record.used.contains_key(&claims.id) {
            return Err(LinkRefused::Used);
        }
        Ok(claims)
    }

    /// Takes a token, so that nobody can use it again. Going back waits for no disk.
    pub(super) async fn take(&self, token: &str) -> Result<Claims, LinkRefused> {
        let claims = self.read(token)?;
        let record = {
            let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            let now = seconds();
            record.used.retain(|_, until| *until >= now);
            if record.used.insert(claims.id.clone(), claims.until).is_some() {
                return Err(LinkRefused::Used);
            }
            record.clone()
        };
        let written = self.writer.write(vec![Change::Links(Box::new(record))]).await;
        match written {
            Err(error) if claims.link != Link::Rollback => {
                let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
                record.used.remove(&claims.id);
                Err(LinkRefused::Unsaved(error.to_string()))
            }
            _ => Ok(claims),
        }
    }
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).ok().map(|()| bytes)
}

fn seconds() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store as _;
    use crate::store::redb::RedbStore;

    const ABOUT: (RolloutId, RevisionId) = (RolloutId(12), RevisionId(4));

    fn links(dir: &std::path::Path, expiry: Duration) -> (Links, std::thread::JoinHandle<()>) {
        let mut store = RedbStore::open(dir).unwrap();
        let record = store.load().unwrap().links;
        let (writer, thread) = Writer::start(Box::new(store), || ()).unwrap();
        (Links::new("https://ops.example.com".to_owned(), expiry, record, writer).unwrap(), thread)
    }

    fn token(url: &str) -> &str {
        url.strip_prefix("https://ops.example.com/links/").unwrap()
    }

    #[tokio::test]
    async fn a_link_acts_once_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let hour = Duration::from_secs(3600);
        let (before, thread) = links(dir.path(), hour);
        let url = before.make(Link::Promote, "web", ABOUT, Some(2), "ops").unwrap();
        let other = before.make(Link::Rollback, "web", ABOUT, None, "ops").unwrap();
        let read = before.read(token(&url)).unwrap();
        assert_eq!((read.link, read.rollout, read.step), (Link::Promote, RolloutId(12), Some(2)));
        assert_eq!(before.take(token(&url)).await.unwrap(), read);
        assert_eq!(before.take(token(&url)).await, Err(LinkRefused::Used));
        drop(before);
        thread.join().unwrap();
        let (after, _thread) = links(dir.path(), hour);
        assert_eq!(after.read(token(&url)), Err(LinkRefused::Used), "remembered");
        assert!(after.take(token(&other)).await.is_ok(), "the key is the same");
    }

    #[tokio::test]
    async fn what_was_changed_or_is_late_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (made, _thread) = links(dir.path(), Duration::ZERO);
        let url = made.make(Link::Promote, "web", ABOUT, None, "ops").unwrap();
        let (said, tag) = token(&url).split_once('.').unwrap();
        let mut claims: Claims = serde_json::from_slice(&BASE64.decode(said).unwrap()).unwrap();
        claims.until += 3600;
        let longer = BASE64.encode(serde_json::to_vec(&claims).unwrap());
        for forged in ["", "a.b", said, &format!("{longer}.{tag}"), &format!("{said}.{longer}")] {
            assert_eq!(made.read(forged), Err(LinkRefused::Forged), "{forged}");
        }
        claims.until -= 7200;
        assert_eq!(made.read(&made.sign(&claims)), Err(LinkRefused::Expired));
    }
}
