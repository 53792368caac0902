//! The embedded store: one redb file, one table per kind of record, JSON values.
//!
//! redb locks its file, so a second daemon on the same state is found out here.

use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Change, Everything, Store, StoreError};

type Table = TableDefinition<'static, &'static str, &'static [u8]>;

const META: Table = TableDefinition::new("meta");
const SERVICES: Table = TableDefinition::new("services");
const REVISIONS: Table = TableDefinition::new("revisions");
const ACTIVE: Table = TableDefinition::new("active");
const HISTORY: Table = TableDefinition::new("history");
const CERTIFICATES: Table = TableDefinition::new("certificates");
const AUTHORITIES: Table = TableDefinition::new("authorities");
const TABLES: [Table; 7] = [META, SERVICES, REVISIONS, ACTIVE, HISTORY, CERTIFICATES, AUTHORITIES];
/// The keys in [`AUTHORITIES`].
const ACCOUNT: &str = "account";
const LOCAL: &str = "local";
const LINKS: &str = "links";

/// The format of the records. Raised when a record changes so that an older version cannot read it.
const FORMAT: u64 = 1;

/// The file's name within the state directory.
pub const FILE: &str = "state.redb";

/// A redb file.
#[derive(Debug)]
pub struct RedbStore {
    /// None only after a write failed and the file could not be opened again.
    database: Option<Database>,
    path: PathBuf,
}

impl RedbStore {
    /// Opens the store in a state directory, which is made if it does not exist.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let fail = |reason: String| StoreError::Open { path: path.clone(), reason };
        std::fs::create_dir_all(dir).map_err(|e| fail(e.to_string()))?;
        keep_private(&path).map_err(|e| fail(e.to_string()))?;
        let database = Database::create(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(dir.to_owned()),
            other => fail(other.to_string()),
        })?;
        let store = Self { database: Some(database), path: path.clone() };
        store.check_format()?;
        Ok(store)
    }

    fn database(&self) -> Result<&Database, StoreError> {
        let reason = || "the file is closed".to_owned();
        let closed = || StoreError::Open { path: self.path.clone(), reason: reason() };
        self.database.as_ref().ok_or_else(closed)
    }

    fn check_format(&self) -> Result<(), StoreError> {
        let fail = |reason: String| StoreError::Open { path: self.path.clone(), reason };
        let write = self.database()?.begin_write().map_err(|e| fail(e.to_string()))?;
        for table in TABLES {
            write.open_table(table).map_err(|e| fail(e.to_string()))?;
        }
        {
            let mut meta = write.open_table(META).map_err(|e| fail(e.to_string()))?;
            let found: Option<u64> = meta
                .get("format")
                .map_err(|e| fail(e.to_string()))?
                .and_then(|value| serde_json::from_slice(value.value()).ok());
            match found {
                Some(FORMAT) => {}
                Some(found) => {
                    let path = self.path.clone();
                    return Err(StoreError::Format { path, found, understood: FORMAT });
                }
                None => {
                    let bytes = FORMAT.to_string();
                    meta.insert("format", bytes.as_bytes()).map_err(|e| fail(e.to_string()))?;
                }
            }
        }
        write.commit().map_err(|e| fail(e.to_string()))
    }

    fn one<T: DeserializeOwned>(&self, table: Table, key: &str) -> Result<Option<T>, StoreError> {
        let fail = |reason: String| StoreError::Open { path: self.path.clone(), reason };
        let read = self.database()?.begin_read().map_err(|e| fail(e.to_string()))?;
        let table = read.open_table(table).map_err(|e| fail(e.to_string()))?;
        let Some(value) = table.get(key).map_err(|e| fail(e.to_string()))? else {
            return Ok(None);
        };
        serde_json::from_slice(value.value()).map(Some).map_err(|error| StoreError::Damaged {
            what: key.to_owned(),
            reason: error.to_string(),
        })
    }

    fn read<T: DeserializeOwned>(&self, table: Table) -> Result<Vec<(String, T)>, StoreError> {
        let fail = |reason: String| StoreError::Open { path: self.path.clone(), reason };
        let read = self.database()?.begin_read().map_err(|e| fail(e.to_string()))?;
        let table = read.open_table(table).map_err(|e| fail(e.to_string()))?;
        let mut records = Vec::new();
        for item in table.iter().map_err(|e| fail(e.to_string()))? {
            let (key, value) = item.map_err(|e| fail(e.to_string()))?;
            let what = key.value().to_owned();
            let record = serde_json::from_slice(value.value()).map_err(|error| {
                StoreError::Damaged { what: what.clone(), reason: error.to_string() }
            })?;
            records.push((what, record));
        }
        Ok(records)
    }
}

impl Store for RedbStore {
    fn load(&mut self) -> Result<Everything, StoreError> {
        let name = |key: &str| {
            let name = key.split('/').next().unwrap_or(key);
            crate::model::id::ServiceName::new(name).map_err(|error| StoreError::Damaged {
                what: key.to_owned(),
                reason: error.to_string(),
            })
        };
        let mut everything = Everything::default();
        for (key, record) in self.read(SERVICES)? {
            everything.services.push((name(&key)?, record));
        }
        for (key, record) in self.read(REVISIONS)? {
            everything.revisions.push((name(&key)?, record));
        }
        everything.active = self.read(ACTIVE)?.into_iter().map(|(_, record)| record).collect();
        everything.history = self.read(HISTORY)?.into_iter().map(|(_, record)| record).collect();
        let certificates = self.read(CERTIFICATES)?.into_iter();
        everything.certificates = certificates.map(|(_, record)| record).collect();
        everything.account = self.one(AUTHORITIES, ACCOUNT)?;
        everything.authority = self.one(AUTHORITIES, LOCAL)?;
        everything.links = self.one(AUTHORITIES, LINKS)?;
        Ok(everything)
    }

    fn write(&mut self, batch: &[Change]) -> Result<(), StoreError> {
        let written = self.try_write(batch);
        if written.is_err() {
            // After a failed write redb refuses everything until the file is opened anew; what was
            // committed before is whole.
            self.reopen();
        }
        written
    }
}

impl RedbStore {
    fn reopen(&mut self) {
        // The lock must go before it can be taken again.
        self.database = None;
        match Database::create(&self.path) {
            Ok(database) => self.database = Some(database),
            Err(error) => tracing::error!(%error, "the state cannot be opened again"),
        }
    }

    fn try_write(&mut self, batch: &[Change]) -> Result<(), StoreError> {
        if self.database.is_none() {
            self.reopen();
        }
        let fail = |reason: String| StoreError::Write(reason);
        let database = self.database.as_ref();
        let database = database.ok_or_else(|| fail("the file cannot be opened".to_owned()))?;
        let write = database.begin_write().map_err(|e| fail(e.to_string()))?;
        for change in batch {
            let (table, key, value) = entry(change)?;
            let mut table = write.open_table(table).map_err(|e| fail(e.to_string()))?;
            match value {
                Some(value) => {
                    table
                        .insert(key.as_str(), value.as_slice())
                        .map_err(|e| fail(e.to_string()))?;
                }
                None => {
                    table.remove(key.as_str()).map_err(|e| fail(e.to_string()))?;
                }
            }
        }
        write.commit().map_err(|e| fail(e.to_string()))
    }
}

/// Private keys and instances' secrets are in the file: it is its owner's alone, from its first byte.
fn keep_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let permissions = file.metadata()?.permissions();
    if permissions.mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// The table, key and value of a change; no value removes.
fn entry(change: &Change) -> Result<(Table, String, Option<Vec<u8>>), StoreError> {
    fn json<T: Serialize>(record: &T) -> Result<Option<Vec<u8>>, StoreError> {
        serde_json::to_vec(record).map(Some).map_err(|e| StoreError::Write(e.to_string()))
    }
    // Numbers are padded so that the order of keys is the order of numbers.
    Ok(match change {
        Change::Service(name, record) => (SERVICES, name.to_string(), json(record)?),
        Change::Revision(name, revision) => {
            (REVISIONS, format!("{name}/{:010}", revision.id.0), json(revision)?)
        }
        Change::DropRevision(name, id) => (REVISIONS, format!("{name}/{:010}", id.0), None),
        Change::Active(record) => (ACTIVE, record.checkpoint.service.to_string(), json(record)?),
        Change::DropActive(name) => (ACTIVE, name.to_string(), None),
        Change::History(entry) => (HISTORY, format!("{:020}", entry.checkpoint.id.0), json(entry)?),
        Change::DropHistory(id) => (HISTORY, format!("{:020}", id.0), None),
        Change::Certificate(record) => (CERTIFICATES, record.name.clone(), json(record)?),
        Change::DropCertificate(name) => (CERTIFICATES, name.clone(), None),
        Change::Account(record) => (AUTHORITIES, ACCOUNT.to_owned(), json(record)?),
        Change::Authority(record) => (AUTHORITIES, LOCAL.to_owned(), json(record)?),
        Change::Links(record) => (AUTHORITIES, LINKS.to_owned(), json(record)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::{RevisionId, RolloutId, ServiceName};
    use crate::rollout::machine::Kind;
    use crate::rollout::phase::Phase;
    use crate::rollout::plan::Plan;
    use crate::store::records::{
        AccountRecord, ActiveRecord, CertificateRecord, Hidden, ServiceRecord,
    };

    fn active() -> ActiveRecord {
        let checkpoint = crate::rollout::checkpoint::Checkpoint {
            id: RolloutId(7),
            service: ServiceName::new("web").expect("a name"),
            kind: Kind::Canary,
            stable: Some(RevisionId(1)),
            canary: RevisionId(2),
            plan: Plan::default(),
            phase: Phase::Baking { step: 1 },
            instances: Vec::new(),
            memory: None,
            started: 1,
        };
        ActiveRecord { checkpoint, events: Vec::new() }
    }

    #[test]
    fn what_is_written_is_read_again_after_reopening() {
        let dir = tempfile::tempdir().expect("a directory");
        let web = ServiceName::new("web").expect("a name");
        let record = ServiceRecord { last_revision: 2, ..ServiceRecord::default() };
        {
            let mut store = RedbStore::open(dir.path()).expect("a store");
            let batch = [
                Change::Service(web.clone(), Box::new(record.clone())),
                Change::Active(Box::new(active())),
            ];
            store.write(&batch).expect("written");
        }
        let mut store = RedbStore::open(dir.path()).expect("a store");
        let everything = store.load().expect("loaded");
        assert_eq!(everything.services, vec![(web.clone(), record)]);
        assert_eq!(everything.active, vec![active()]);
        store.write(&[Change::DropActive(web)]).expect("written");
        assert!(store.load().expect("loaded").active.is_empty());
    }

    #[test]
    fn keys_are_kept_and_are_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(FILE);
        let mode = || std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777;
        let record = CertificateRecord {
            name: "app.example".to_owned(),
            source: "acme".to_owned(),
            chain: "chain".to_owned(),
            key: Hidden("key".to_owned()),
        };
        let account = AccountRecord {
            directory: "https://ca.example/dir".to_owned(),
            email: "ops@app.example".to_owned(),
            credentials: Hidden("{}".to_owned()),
        };
        {
            let mut store = RedbStore::open(dir.path()).expect("a store");
            let batch = [
                Change::Certificate(Box::new(record.clone())),
                Change::Account(Box::new(account.clone())),
            ];
            assert!(!format!("{batch:?}").contains("\"key\""), "hidden");
            store.write(&batch).expect("written");
            assert_eq!(mode(), 0o600);
        }
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("changed");
        let mut store = RedbStore::open(dir.path()).expect("a store");
        assert_eq!(mode(), 0o600, "tightened");
        let everything = store.load().expect("loaded");
        assert_eq!(everything.certificates, [record]);
        assert_eq!((everything.account, everything.authority), (Some(account), None));
        store.write(&[Change::DropCertificate("app.example".to_owned())]).expect("written");
        assert!(store.load().expect("loaded").certificates.is_empty());
    }

    #[test]
    fn a_second_daemon_is_told_so() {
        let dir = tempfile::tempdir().expect("a directory");
        let _first = RedbStore::open(dir.path()).expect("a store");
        let error = RedbStore::open(dir.path()).expect_err("in use");
        assert!(matches!(error, StoreError::InUse(_)), "{error}");
        assert!(error.to_string().contains("another daemon"), "{error}");
    }

    #[test]
    fn a_file_of_another_format_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        {
            let store = RedbStore::open(dir.path()).expect("a store");
            let write = store.database().expect("open").begin_write().expect("a transaction");
            write.open_table(META).expect("meta").insert("format", b"99".as_slice()).expect("put");
            write.commit().expect("committed");
        }
        let error = RedbStore::open(dir.path()).expect_err("another format");
        assert!(matches!(error, StoreError::Format { found: 99, .. }), "{error}");
    }

    #[test]
    fn a_path_that_is_a_file_says_what_to_change() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = RedbStore::open(file.path()).expect_err("not a directory");
        assert!(error.to_string().contains("must be a directory"), "{error}");
    }
}
