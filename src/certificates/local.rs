//! The CA of this machine: for names that no authority signs, such as `app.localhost`.
//!
//! Made at the first need, kept in the store; its certificate lies beside the store, to be trusted by
//! whoever wants to. Its key leaves the store never.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::store::records::{AuthorityRecord, Hidden};

/// The file's name within the state directory.
pub const FILE: &str = "local-ca.pem";

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Apple's systems refuse more than 825 days; renewal is free.
const LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Makes a CA.
pub fn make(now: SystemTime) -> Result<AuthorityRecord, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "Switchback local CA");
    params.not_before = (now - DAY).into();
    params.not_after = (now + CA_LIFE).into();
    let certificate = params.self_signed(&key)?;
    Ok(AuthorityRecord { certificate: certificate.pem(), key: Hidden(key.serialize_pem()) })
}

/// Signs a certificate for a name: its chain and key, PEM.
pub fn sign(
    authority: &AuthorityRecord,
    name: &str,
    now: SystemTime,
) -> Result<(String, String), rcgen::Error> {
    let issuer =
        Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key.0)?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    // A clock that is a little behind must not refuse it.
    params.not_before = (now - DAY).into();
    params.not_after = (now + LIFE).into();
    let certificate = params.signed_by(&key, &issuer)?;
    Ok((format!("{}{}", certificate.pem(), authority.certificate), key.serialize_pem()))
}

/// Lays the CA's certificate where people find it, and tells how to trust it.
pub fn lay_out(authority: &AuthorityRecord, dir: &Path) {
    let path = dir.join(FILE);
    let same = std::fs::read_to_string(&path).is_ok_and(|text| text == authority.certificate);
    if !same && let Err(error) = std::fs::write(&path, &authority.certificate) {
        tracing::warn!(%error, "the local CA's certificate cannot be written to {}", path.display());
        return;
    }
    tracing::info!(
        "certificates for local names are signed by {0}; to trust them on Debian: \
         sudo cp {0} /usr/local/share/ca-certificates/switchback-local.crt && \
         sudo update-ca-certificates; for one command: curl --cacert {0}",
        path.display()
    );
}
