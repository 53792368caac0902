//! Certificates in files: read together, and read again when one of them changed.
//!
//! A change is a new size, inode or time, looked for every few seconds: it finds what is written in
//! place, what is renamed into place, and links that are turned, as certbot and Kubernetes do.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::Config;
use crate::proxy::tls::{CertificateFiles, ClientAuth, Pair, Settings, TlsError};

/// What tells that a file was changed.
type Stamp = Option<(u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    Some((file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}

/// What was read from files, and how they looked then.
#[derive(Debug, Default)]
pub struct Files {
    /// Certificates, each with its file's name.
    pub pairs: Vec<(PathBuf, Arc<Pair>)>,
    /// Notes about them, by the certificate's file.
    pub notes: Vec<(PathBuf, String)>,
    stamps: Vec<Stamp>,
    client_stamps: Vec<Stamp>,
}

fn files_of(config: &Config) -> Vec<CertificateFiles> {
    let certificates = config.tls.iter().flat_map(|tls| &tls.certificates);
    let files = certificates
        .map(|one| CertificateFiles { certificate: one.cert.clone(), key: one.key.clone() });
    files.collect()
}

/// How TLS is to be spoken.
#[must_use]
pub fn settings_of(config: &Config) -> Settings {
    let Some(tls) = &config.tls else { return Settings::default() };
    let client = tls.client.as_ref().map(|client| ClientAuth {
        authority: client.authority.clone(),
        revoked: client.revoked.clone(),
        is_required: client.is_required,
    });
    Settings { only_13: tls.only_13, client }
}

/// Why a key's file is readable by too many, if it is.
///
/// A group may read it: that is how Debian shares keys. Nobody else, and nobody but its owner writes.
#[must_use]
pub fn loose(key: &Path) -> Option<String> {
    let mode = std::fs::metadata(key).ok()?.mode();
    (mode & 0o027 != 0).then(|| {
        format!(
            "the private key {} has mode {:04o}, so that others than its owner can get at it: \
             chmod 600 it",
            key.display(),
            mode & 0o777
        )
    })
}

impl Files {
    /// Reads all files of a configuration. The stamps are taken before, so that what changes
    /// meanwhile is read again.
    pub fn read(config: &Config) -> Result<Self, TlsError> {
        let (stamps, client_stamps) = (Self::stamps(config), Self::client_stamps(config));
        let mut files = Self { stamps, client_stamps, ..Self::default() };
        for one in files_of(config) {
            files.notes.extend(loose(&one.key).map(|note| (one.certificate.clone(), note)));
            files.pairs.push((one.certificate.clone(), Arc::new(Pair::read(&one)?)));
        }
        Ok(files)
    }

    fn stamps(config: &Config) -> Vec<Stamp> {
        let files = files_of(config);
        files.iter().flat_map(|one| [stamp(&one.certificate), stamp(&one.key)]).collect()
    }

    fn client_stamps(config: &Config) -> Vec<Stamp> {
        let client = settings_of(config).client;
        let paths =
            client.iter().flat_map(|one| std::iter::once(&one.authority).chain(&one.revoked));
        paths.map(|path| stamp(path)).collect()
    }

    /// Whether a file is not as it was read.
    #[must_use]
    pub fn have_changed(&self, config: &Config) -> bool {
        self.stamps != Self::stamps(config) || self.client_changed(config)
    }

    /// Whether what clients' certificates are checked by is not as it was read.
    #[must_use]
    pub fn client_changed(&self, config: &Config) -> bool {
        self.client_stamps != Self::client_stamps(config)
    }
}
