//! `import`: reads the configuration of another server and prints ours.

use std::io::Read as _;
use std::path::Path;

use super::args::offline::From;
use super::exit::{Exit, Failure};
use super::output;

/// Runs the verb.
pub(super) fn run(from: &From) -> Result<Exit, Failure> {
    let From::Nginx { file } = from;
    let text = read(file)?;
    let imported = crate::nginx::import(&text)
        .map_err(|error| Failure::new(Exit::Error, format!("{}: {error}", file.display())))?;
    let mut toml = imported.toml;
    if !imported.left.is_empty() {
        toml.push_str("\n# Not carried over:\n");
        for left in &imported.left {
            toml.push_str(&format!("# {left}\n"));
        }
        let count = imported.left.len();
        let things = if count == 1 { "thing was" } else { "things were" };
        output::talk(&format!(
            "{count} {things} not carried over: they stand at the end, each with its line"
        ));
    }
    output::data(toml.trim_end())?;
    Ok(Exit::Done)
}

fn read(file: &Path) -> Result<String, Failure> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return Ok(text);
    }
    let said = |why| Failure::new(Exit::Error, format!("{} cannot be read: {why}", file.display()));
    crate::config::load::read(file).map_err(said)
}
