//! One order: shows the authority that a name is ours, and takes the certificate.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Identifier,
    KeyAuthorization, NewOrder, Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};

use super::hook;
use crate::proxy::tls::Certificates;

/// How long the authority may take to look, and then to sign.
const PATIENCE: Duration = Duration::from_secs(90);

/// What is ordered.
pub struct Job {
    /// With which account.
    pub account: Account,
    /// For which name.
    pub name: String,
    /// How it may be shown that the name is ours, best first.
    pub ways: Vec<ChallengeType>,
    /// Where proofs are shown.
    pub tls: Arc<Certificates>,
    /// What publishes DNS records.
    pub hook: Vec<String>,
    /// How long records take to be seen.
    pub wait: Duration,
    /// Which profile.
    pub profile: Option<String>,
    /// Which certificate it replaces.
    pub replaces: Option<CertificateIdentifier<'static>>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The authority could not be reached, or refused.
    #[error("{0}")]
    Acme(#[from] instant_acme::Error),
    /// The authority could not see the proof.
    #[error("the authority could not verify the name: {0}")]
    Unverified(String),
    /// The authority takes none of the proofs that can be given.
    #[error("the authority offers {offered} for this name, and none of it can be shown here")]
    NoWay {
        /// What it takes.
        offered: String,
    },
    /// The DNS hook failed.
    #[error("{0}")]
    Hook(String),
    /// A key or certificate could not be made.
    #[error("a key could not be made: {0}")]
    Key(#[from] rcgen::Error),
    /// The certificate that came cannot be used.
    #[error("the authority's certificate cannot be used: {0}")]
    Tls(#[from] crate::proxy::tls::TlsError),
    /// It took too long.
    #[error("the authority did not finish within {0:?}")]
    Slow(Duration),
}

impl Failed {
    /// Whether the authority does not know our account any more.
    #[must_use]
    pub fn is_unknown_account(&self) -> bool {
        self.kind().is_some_and(|kind| kind.ends_with(":accountDoesNotExist"))
    }

    /// Whether the authority has enough of us for a while.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        self.kind().is_some_and(|kind| kind.ends_with(":rateLimited"))
    }

    fn kind(&self) -> Option<&str> {
        match self {
            Self::Acme(instant_acme::Error::Api(problem)) => problem.r#type.as_deref(),
            _ => None,
        }
    }
}

/// Proofs that are shown; taken back when dropped.
struct Shown {
    tls: Arc<Certificates>,
    keys: Vec<String>,
    /// DNS records, by name and value.
    records: Vec<(String, String)>,
}

impl Drop for Shown {
    fn drop(&mut self) {
        for key in &self.keys {
            self.tls.challenges().remove(key);
        }
    }
}

/// Orders a certificate: the chain and its key, PEM.
///
/// Cancel safety: dropped, the order is abandoned; a DNS record may stay.
pub async fn obtain(job: &Job) -> Result<(String, String), Failed> {
    let identifiers = [Identifier::Dns(job.name.clone())];
    let mut new = NewOrder::new(&identifiers);
    if let Some(replaced) = &job.replaces {
        new = new.replaces(replaced.clone());
    }
    if let Some(profile) = &job.profile {
        new = new.profile(profile);
    }
    let mut order = job.account.new_order(&new).await?;
    let mut shown = Shown { tls: Arc::clone(&job.tls), keys: Vec::new(), records: Vec::new() };
    let got = prove_and_take(job, &mut order, &mut shown).await;
    for (record, value) in std::mem::take(&mut shown.records) {
        if let Err(error) = hook::call(&job.hook, "cleanup", &record, &value).await {
            tracing::warn!(name = job.name, "{error}");
        }
    }
    got
}

async fn prove_and_take(
    job: &Job,
    order: &mut Order,
    shown: &mut Shown,
) -> Result<(String, String), Failed> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let offers =
            |way: &&ChallengeType| authorization.challenges.iter().any(|c| c.r#type == **way);
        let way = job.ways.iter().find(offers).cloned();
        let offered: Vec<String> =
            authorization.challenges.iter().map(|c| format!("{:?}", c.r#type)).collect();
        let none = || Failed::NoWay { offered: offered.join(", ") };
        let way = way.ok_or_else(none)?;
        let mut challenge = authorization.challenge(way.clone()).ok_or_else(none)?;
        let (token, proof) = (challenge.token.clone(), challenge.key_authorization());
        show(job, &way, &token, &proof, shown).await?;
        challenge.set_ready().await?;
    }
    let patience = RetryPolicy::new().timeout(PATIENCE);
    match order.poll_ready(&patience).await {
        Ok(OrderStatus::Ready | OrderStatus::Valid) => {}
        ended => {
            if let Some(why) = why(order).await {
                return Err(Failed::Unverified(why));
            }
            let status = ended?;
            return Err(Failed::Unverified(format!("the order is {status:?}")));
        }
    }
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&patience).await?;
    Ok((chain, key))
}

async fn show(
    job: &Job,
    way: &ChallengeType,
    token: &str,
    proof: &KeyAuthorization,
    shown: &mut Shown,
) -> Result<(), Failed> {
    let bare = job.name.trim_start_matches("*.");
    match way {
        ChallengeType::TlsAlpn01 => {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::new(vec![bare.to_owned()])?;
            let mark = CustomExtension::new_acme_identifier(proof.digest().as_ref());
            params.custom_extensions = vec![mark];
            let marked = params.self_signed(&key)?;
            shown.keys.push(bare.to_owned());
            job.tls.challenges().add_certificate(bare, marked.der(), key.serialized_der())?;
        }
        ChallengeType::Dns01 => {
            let record = format!("_acme-challenge.{bare}.");
            let value = proof.dns_value();
            shown.records.push((record.clone(), value.clone()));
            hook::call(&job.hook, "present", &record, &value).await.map_err(Failed::Hook)?;
            tokio::time::sleep(job.wait).await;
        }
        _ => {
            shown.keys.push(token.to_owned());
            job.tls.challenges().add_token(token, proof.as_str());
        }
    }
    Ok(())
}

/// What the authority says about the proofs that it did not like.
async fn why(order: &mut Order) -> Option<String> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let problem = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = problem {
            return Some(problem.detail.clone().unwrap_or_else(|| problem.to_string()));
        }
    }
    None
}
