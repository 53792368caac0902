//! What is known of a certificate: for the status page, and for those who renew it.

use serde::{Deserialize, Serialize};

/// A certificate that is served, or that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The names it is valid for.
    pub names: Vec<String>,
    /// Where it comes from: the path of its file, `acme`, or `local`.
    pub source: String,
    /// `serving`; `waiting` for the first one; `failing` when it could not be had or renewed.
    pub state: String,
    /// When it expires, RFC 3339; absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// When it expires, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after_seconds: Option<i64>,
    /// Whole days until then; negative when it has expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub days_left: Option<i64>,
    /// What a person should know or do, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
