//! `completions` and `man`: made from the argument definitions, so that they are never behind.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Args;
use super::exit::{Exit, Failure};
use super::output;

/// Writes the completions of a shell.
pub fn completions(shell: Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "switchback", &mut script);
    output::raw(&script)?;
    Ok(Exit::Done)
}

/// Writes the manual page to stdout, or a page for every verb into a directory.
pub fn man(dir: Option<&Path>) -> Result<Exit, Failure> {
    let command = Args::command();
    match dir {
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page)?;
            output::raw(&page)?;
        }
        Some(dir) => {
            clap_mangen::generate_to(command, dir).map_err(|error| {
                let why = format!("the pages cannot be written to {}: {error}", dir.display());
                Failure::new(Exit::Error, why)
            })?;
            output::talk(&format!("the pages are in {}", dir.display()));
        }
    }
    Ok(Exit::Done)
}
