//! How far something that takes time has come, and who is told.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How far something that takes time has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is done, as a person says it: `pulling web:v2`, `saving the image`.
    pub what: String,
    /// Bytes that are done, where bytes are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Bytes that there are, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<u64>,
    /// A line of output to show and to keep, such as a build's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
}

/// Who is told of progress; nobody, by default. Cheap to clone.
#[derive(Clone, Default)]
pub struct Listener(Option<Arc<dyn Fn(Progress) + Send + Sync>>);

impl Listener {
    /// Tells this function, which must not wait.
    pub fn new(hears: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(hears)))
    }

    /// Says what is begun.
    pub fn begin(&self, what: &str) {
        self.tell(Progress { what: what.to_owned(), done: None, of: None, line: None });
    }

    /// Says how far it is.
    pub fn count(&self, what: &str, done: u64, of: Option<u64>) {
        self.tell(Progress { what: what.to_owned(), done: Some(done), of, line: None });
    }

    /// Hands on a line of output.
    pub fn line(&self, what: &str, line: &str) {
        let line = Some(line.to_owned());
        self.tell(Progress { what: what.to_owned(), done: None, of: None, line });
    }

    fn tell(&self, progress: Progress) {
        if let Some(hears) = &self.0 {
            hears(progress);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Listener" } else { "Listener(nobody)" })
    }
}
