//! The operator's verbs, one file each.
//!
//! A verb that needs a daemon speaks to it through [`client`] and says what it has to say on a
//! [`console`]; one that needs none says it through [`output`]. Verbs decide nothing about rollouts,
//! they ask and tell, and they never end the process themselves: they give an [`exit::Exit`].

pub mod act;
mod analyze;
pub mod args;
mod audit;
pub mod check;
mod checkpoint;
pub mod client;
pub mod config;
pub mod console;
mod demo;
pub mod deploy;
mod doctor;
pub mod events;
pub mod exit;
pub mod figures;
mod gates;
pub mod generate;
pub mod history;
mod import;
pub mod init;
pub(crate) mod live;
pub mod logs;
mod online;
pub mod output;
mod progress;
mod query;
pub mod reload;
mod run;
mod sheet;
mod source;
mod state;
mod stats;
pub mod status;
mod stream;
mod tester;
#[cfg(test)]
mod tests;
mod together;
mod top;
pub mod trouble;
pub mod version;
pub mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use args::daemon::Daemon;
use args::offline::Offline;
use args::{Args, Verb};
use exit::{Exit, Failure};

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    match parse(std::env::args_os()) {
        // These two are programs of their own that share our binary.
        Ok(Verb::Daemon(Daemon::InstanceShim(args))) => crate::runtime::shim::main(&args.dir),
        Ok(Verb::Daemon(Daemon::SampleApp(args))) => crate::demo::sample::main(args.port),
        Ok(verb) => dispatch(verb).unwrap_or_else(|failure| told(&failure)).into(),
        Err(exit) => exit.into(),
    }
}

/// Reads a command line, its first word being the program.
fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Verb, Exit> {
    let parsed =
        Args::command().try_get_matches_from(words).and_then(|m| Args::from_arg_matches(&m));
    parsed.map(|args| args.verb).map_err(|error| {
        // Help that was asked for goes to stdout and is no error; if nobody reads it, so be it.
        let _ = error.print();
        if error.exit_code() == 0 { Exit::Done } else { Exit::Usage }
    })
}

fn told(failure: &Failure) -> Exit {
    if !failure.said.is_empty() {
        output::talk(&failure.said);
    }
    failure.exit
}

fn dispatch(verb: Verb) -> Result<Exit, Failure> {
    match verb {
        Verb::Offline(verb) => match verb {
            Offline::Check(args) => check::run(&args),
            Offline::Analyze(args) => analyze::run(&args),
            Offline::Config(args) => config::run(&args.verb),
            Offline::Init(args) => init::run(&args.file),
            Offline::Import(args) => import::run(&args.from),
            Offline::Version(output) => version::run(output),
            Offline::Completions(args) => generate::completions(args.shell),
            Offline::Man(args) => generate::man(args.dir.as_deref()),
        },
        Verb::Daemon(verb) => online::run(verb),
    }
}
