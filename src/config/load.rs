//! Finds and reads the file. The one module of this room that touches the file system.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::problem::Problems;
use super::{Input, Parsed, parse};

/// Where the file is looked for when nobody says where it is, in this order.
pub const PLACES: [&str; 2] = ["./switchback.toml", "/etc/switchback/switchback.toml"];

/// The largest file that is read. Ten thousand services fit; an endless device does not.
const MAX_SIZE: u64 = 16 << 20;

/// The environment as a map. Variables that are not UTF-8 are left out.
#[must_use]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The path of the file: the flag, else `SWITCHBACK_CONFIG`, else the first of [`PLACES`] that is
/// there.
pub fn locate(
    flag: Option<&Path>,
    variables: &BTreeMap<String, String>,
) -> Result<PathBuf, Problems> {
    if let Some(path) = flag {
        return Ok(path.to_owned());
    }
    if let Some(path) = variables.get("SWITCHBACK_CONFIG").filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let found = PLACES.iter().find(|path| Path::new(path).exists());
    found.map(|path| Path::new(path.trim_start_matches("./")).to_owned()).ok_or_else(|| {
        Problems::nowhere(
            format!("there is no configuration: looked for {}", PLACES.join(" and ")),
            Some(
                "`switchback init` writes a file to start from; -c FILE reads another one"
                    .to_owned(),
            ),
        )
    })
}

/// Reads the file at `path` and everything that it names.
pub fn load(
    path: &Path,
    variables: &BTreeMap<String, String>,
    flags: &[String],
) -> Result<Parsed, Problems> {
    let text = read(path).map_err(|why| {
        Problems::nowhere(format!("{} cannot be read: {why}", path.display()), None)
    })?;
    parse(&Input { name: path, text: &text, variables, flags, read: &read })
}

/// Reads a text file. The error is for a person.
pub fn read(path: &Path) -> Result<String, String> {
    let said = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "this user may not read it".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ => error.to_string(),
    };
    let size = std::fs::metadata(path).map_err(said)?.len();
    if size > MAX_SIZE {
        return Err("it is larger than 16 MiB".to_owned());
    }
    std::fs::read_to_string(path).map_err(said)
}
