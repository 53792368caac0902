//! `config show` and `config schema`.

use super::args::offline::ConfigVerb;
use super::exit::{Exit, Failure};
use super::output;
use crate::config::load::{environment, load, locate};
use crate::config::{schema, show};

/// Runs the verb.
pub fn run(verb: &ConfigVerb) -> Result<Exit, Failure> {
    match verb {
        ConfigVerb::Show(args) => {
            let variables = environment();
            let path = locate(args.source.config.as_deref(), &variables)?;
            let parsed = load(&path, &variables, &args.source.settings)?;
            if !parsed.warnings.list.is_empty() {
                output::talk(&parsed.warnings.render(true));
            }
            if args.output.is_json() {
                output::json(&show::json(&parsed.document))?;
            } else {
                output::data(&show::toml(&parsed.document))?;
            }
        }
        ConfigVerb::Schema => output::json(&schema::schema())?,
    }
    Ok(Exit::Done)
}
