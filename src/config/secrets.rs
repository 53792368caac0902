//! Reads where secrets are; what they say is read when an instance starts.

use std::path::{Path, PathBuf};

use super::raw::Value;
use super::reader::Section;
use crate::model::secret::{SecretSource, Secrets, is_name};

/// What stands before the name of a variable.
const VARIABLE: &str = "env:";

/// The secrets of a service, by the names of their files.
pub(super) fn read_secrets(section: &Section<'_>, base: &Path) -> Secrets {
    let mut secrets = Secrets::new();
    for entry in section.entries("secrets") {
        let (name, place) = (&entry.key, &entry.node.place);
        if !is_name(name) {
            let title = format!("{name:?} cannot name a secret");
            let expected = "it is the name of a file: letters, digits, '_', '.' and '-'";
            section.wrong("secrets", place, title, expected);
            continue;
        }
        let source = match &entry.node.value {
            Value::Text(text) => source(text, base, place.source == 0),
            _ => None,
        };
        match source {
            Some(source) => {
                secrets.insert(name.clone(), source);
            }
            None => {
                let title = format!("it is not said where the secret {name} is");
                let expected = "expected a file, \"secrets/db.txt\", or a variable of the daemon's, \
                                \"env:DATABASE_PASSWORD\"";
                section.wrong("secrets", place, title, expected);
            }
        }
    }
    secrets
}

/// A file relative to the configuration, or a variable.
fn source(text: &str, base: &Path, in_file: bool) -> Option<SecretSource> {
    if let Some(name) = text.strip_prefix(VARIABLE) {
        let is_variable = !name.is_empty() && !name.contains(['=', '\0']);
        return is_variable.then(|| SecretSource::Variable(name.to_owned()));
    }
    if text.is_empty() || text.contains('\0') {
        return None;
    }
    let path = if in_file { base.join(text) } else { PathBuf::from(text) };
    // A revision outlives the place where the daemon was started.
    Some(SecretSource::File(std::path::absolute(&path).unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_file_or_a_variable() {
        let base = Path::new("/etc/switchback");
        let file = |path: &str| Some(SecretSource::File(path.into()));
        assert_eq!(source("db.txt", base, true), file("/etc/switchback/db.txt"));
        assert_eq!(source("/run/db", base, true), file("/run/db"));
        let variable = Some(SecretSource::Variable("TOKEN".to_owned()));
        assert_eq!(source("env:TOKEN", base, true), variable);
        assert_eq!((source("", base, true), source("env:", base, true)), (None, None));
    }
}
