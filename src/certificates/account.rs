//! Our account with a certificate authority: opened once, kept in the store.

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};

use crate::config::tls::Acme;
use crate::store::Change;
use crate::store::records::{AccountRecord, Hidden};
use crate::store::writer::Writer;

/// The account, as far as it is there. Jobs share it behind a lock and open it in turn.
#[derive(Default)]
pub struct Desk {
    /// What the store has.
    pub record: Option<AccountRecord>,
    /// The account in use, and the directory it is with.
    account: Option<(String, Account)>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("record", &self.record).finish_non_exhaustive()
    }
}

impl Desk {
    /// A desk that knows what the store has.
    #[must_use]
    pub fn new(record: Option<AccountRecord>) -> Self {
        Self { record, account: None }
    }

    /// A desk with an account that is open already.
    #[cfg(test)]
    pub fn open(directory: &str, account: Account) -> Self {
        Self { record: None, account: Some((directory.to_owned(), account)) }
    }

    /// The account with this authority. Opens one when there is none, and has it written down first.
    pub async fn account(
        &mut self,
        acme: &Acme,
        writer: &Writer,
    ) -> Result<Account, instant_acme::Error> {
        if let Some((directory, account)) = &self.account
            && *directory == acme.directory
        {
            return Ok(account.clone());
        }
        let known = self
            .record
            .as_ref()
            .filter(|record| record.directory == acme.directory && record.email == acme.email);
        let account = match known {
            Some(record) => {
                let credentials: AccountCredentials = serde_json::from_str(&record.credentials.0)?;
                builder(acme)?.from_credentials(credentials).await?
            }
            None => {
                let (account, credentials) = create(acme).await?;
                let record = AccountRecord {
                    directory: acme.directory.clone(),
                    email: acme.email.clone(),
                    credentials: Hidden(serde_json::to_string(&credentials)?),
                };
                let change = Change::Account(Box::new(record.clone()));
                if let Err(error) = writer.write(vec![change]).await {
                    // It is used all the same; the next start would open another one.
                    tracing::warn!(%error, "the account with the certificate authority is not saved");
                }
                self.record = Some(record);
                account
            }
        };
        self.account = Some((acme.directory.clone(), account.clone()));
        Ok(account)
    }

    /// The authority does not know the account any more: the next job opens another one.
    pub fn forget(&mut self) {
        self.account = None;
        self.record = None;
    }
}

fn builder(acme: &Acme) -> Result<instant_acme::AccountBuilder, instant_acme::Error> {
    match &acme.directory_ca {
        Some(path) => Account::builder_with_root(path),
        None => Account::builder(),
    }
}

async fn create(acme: &Acme) -> Result<(Account, AccountCredentials), instant_acme::Error> {
    let contact = format!("mailto:{}", acme.email);
    let new = NewAccount {
        contact: &[contact.as_str()],
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let external = acme
        .external
        .as_ref()
        .map(|external| ExternalAccountKey::new(external.kid.clone(), &external.key));
    builder(acme)?.create(&new, acme.directory.clone(), external.as_ref()).await
}
