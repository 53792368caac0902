//! The operator's verbs, one file each.
//!
//! A verb gets its arguments and gives an [`Exit`] or a [`Failure`]; it says what it has to say
//! through [`output`] and never ends the process itself.

pub mod args;
pub mod check;
pub mod config;
pub mod exit;
pub mod generate;
pub mod init;
pub mod output;
pub mod version;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::offline::Offline;
use args::{Args, Verb};
use exit::{Exit, Failure};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os()).into()
}

/// Runs a command line, its first word being the program.
pub fn run(words: impl IntoIterator<Item = OsString>) -> Exit {
    let parsed =
        Args::command().try_get_matches_from(words).and_then(|m| Args::from_arg_matches(&m));
    let args = match parsed {
        Ok(args) => args,
        Err(error) => {
            // Help that was asked for goes to stdout and is no error; if nobody reads it, so be it.
            let _ = error.print();
            return if error.exit_code() == 0 { Exit::Done } else { Exit::Usage };
        }
    };
    dispatch(args.verb).unwrap_or_else(|failure| {
        if !failure.said.is_empty() {
            output::talk(&failure.said);
        }
        failure.exit
    })
}

fn dispatch(verb: Verb) -> Result<Exit, Failure> {
    match verb {
        Verb::Offline(verb) => match verb {
            Offline::Check(args) => check::run(&args),
            Offline::Config(args) => config::run(&args.verb),
            Offline::Init(args) => init::run(&args.file),
            Offline::Version(output) => version::run(output),
            Offline::Completions(args) => generate::completions(args.shell),
            Offline::Man(args) => generate::man(args.dir.as_deref()),
        },
    }
}
