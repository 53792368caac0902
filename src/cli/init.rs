//! `init`: writes a commented file to start from.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::exit::{Exit, Failure};
use super::output;

/// What is written.
pub const TEMPLATE: &str = include_str!("init.toml");

/// Runs the verb.
pub fn run(path: &Path) -> Result<Exit, Failure> {
    let shown = path.display();
    let mut file = File::create_new(path).map_err(|error| {
        let why = match error.kind() {
            ErrorKind::AlreadyExists => {
                format!(
                    "{shown} exists already and was left as it is: remove it, or name another file"
                )
            }
            ErrorKind::NotFound => {
                format!("{shown} cannot be written: there is no such directory")
            }
            ErrorKind::PermissionDenied => format!("{shown} cannot be written: permission denied"),
            _ => format!("{shown} cannot be written: {error}"),
        };
        Failure::new(Exit::Error, why)
    })?;
    file.write_all(TEMPLATE.as_bytes())?;
    output::talk(&format!(
        "{shown} is written: change host, image and port in it, then\n  \
         switchback check\n  switchback run"
    ));
    Ok(Exit::Done)
}
