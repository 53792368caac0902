//! Verbs that need no daemon.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;

use super::{Output, Source};
use crate::analysis::criteria::Criteria;
use crate::cli::exit::EXIT_CODES;

/// Verbs that need no daemon.
#[derive(Debug, Subcommand)]
pub enum Offline {
    /// Reads the configuration without starting anything
    #[command(display_order = 20, long_about = CHECK, after_long_help = EXIT_CODES)]
    Check(Check),
    /// Shows the configuration in effect, or the schema of the file
    #[command(display_order = 22, subcommand_required = true, arg_required_else_help = true)]
    Config(Config),
    /// Judges a recorded rollout again, perhaps by other limits
    #[command(display_order = 49, long_about = ANALYZE)]
    Analyze(Analyze),
    /// Writes a commented switchback.toml to start from
    #[command(display_order = 23, long_about = INIT)]
    Init(Init),
    /// Reads the configuration of another server and prints ours
    #[command(display_order = 24, subcommand_required = true, arg_required_else_help = true)]
    Import(Import),
    /// Shows the version
    #[command(display_order = 90)]
    Version(Output),
    /// Writes the completions of a shell
    #[command(display_order = 91, long_about = COMPLETIONS)]
    Completions(Completions),
    /// Writes the manual page
    #[command(display_order = 92, long_about = MAN)]
    Man(Man),
}

const CHECK: &str = "\
Reads the configuration without starting anything.

  switchback check                           the file where `run` would find it
  switchback check -c new.toml && switchback reload
  switchback check -o json                   what is wrong, for an editor or a pipeline

Everything that is wrong is said at once, with file, line and column. Exit code 7 when the
configuration is not valid, 0 when it is, even if there are warnings.";

const ANALYZE: &str = "\
Judges a recorded rollout again, as it was judged or by other limits, and needs no daemon.

  switchback analyze < samples.jsonl
  switchback analyze /var/lib/switchback/recordings/web/7.jsonl
  switchback analyze --plan 'errors > 0.5% or p99 > 2x' < samples.jsonl
  switchback analyze -o json < samples.jsonl              a line for each second

A service with `record = true` records its rollouts. Per second it says what each part of the evidence
is worth: below 1 speaks for the canary, at 100 it is taken back (at 1/alpha). The first line of the
file says by which limits it was judged; then there is an object for each poll:

  {\"at\":41200,\"epoch\":1,\"weight\":500,\"stable\":{\"success\":[[412,90]]},\"canary\":{\"failure\":[[96,1]]}}

in milliseconds, basis points, and pairs of latency bucket and count by row (success, rejected,
failure, fault, abandoned, repeated). Bucket b begins at b microseconds below 32, else at
(32 + b % 32) << (b / 32 - 1). Exit code 3 when it ends in a rollback, else 0.";

/// `analyze`
#[derive(Debug, Args)]
pub struct Analyze {
    /// The recording [default: stdin]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Judges by these limits, as `abort` takes them, instead of those it was judged by
    #[arg(long, visible_alias = "abort", value_name = "LIMITS")]
    pub plan: Option<Criteria>,
    /// The chance of a false rollback to allow, instead of that it was judged with
    #[arg(long, value_name = "CHANCE", value_parser = chance)]
    pub alpha: Option<f64>,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
}

fn chance(text: &str) -> Result<f64, String> {
    let chance = text.parse().ok().filter(|chance: &f64| *chance > 0.0 && *chance < 1.0);
    chance.ok_or_else(|| "expected a chance between 0 and 1, such as 0.01".to_owned())
}

/// `check`
#[derive(Debug, Args)]
pub struct Check {
    /// Which configuration.
    #[command(flatten)]
    pub source: Source,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
}

/// `import`
#[derive(Debug, Args)]
pub struct Import {
    /// Whose configuration.
    #[command(subcommand)]
    pub from: From,
}

/// `import …`
#[derive(Debug, Subcommand)]
pub enum From {
    /// A configuration of nginx: the main file, or that of one site
    #[command(long_about = NGINX)]
    Nginx {
        /// The file, or - for what is piped in: nginx -T | switchback import nginx -
        file: PathBuf,
    },
}

const NGINX: &str = "\
Reads a configuration of nginx and prints ours.

  switchback import nginx /etc/nginx/sites-enabled/app > switchback.toml
  nginx -T | switchback import nginx - > switchback.toml      all files that are included

What could not be carried over stands at the end, as comments with the line it stood on, and on
stderr. What nginx needs a directive for and Switchback does by itself is left out.";

/// `config`
#[derive(Debug, Args)]
pub struct Config {
    /// What to show.
    #[command(subcommand)]
    pub verb: ConfigVerb,
}

/// `config …`
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Shows every key with the value in effect and where it comes from; secrets are masked
    Show(Check),
    /// Shows the JSON Schema of the file, for editors
    #[command(long_about = SCHEMA)]
    Schema,
}

const SCHEMA: &str = "\
Shows the JSON Schema of the file, for editors.

  switchback config schema > switchback.schema.json

Editors with taplo complete keys and check values once the file begins with
  #:schema ./switchback.schema.json";

const INIT: &str = "\
Writes a commented switchback.toml to start from. What exists is never overwritten.

  switchback init
  switchback init /etc/switchback/switchback.toml";

/// `init`
#[derive(Debug, Args)]
pub struct Init {
    /// Where to write it
    #[arg(value_name = "FILE", default_value = "switchback.toml")]
    pub file: PathBuf,
}

const COMPLETIONS: &str = "\
Writes the completions of a shell to stdout.

  switchback completions bash > /etc/bash_completion.d/switchback
  switchback completions zsh > \"${fpath[1]}/_switchback\"
  switchback completions fish > ~/.config/fish/completions/switchback.fish";

/// `completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// Which shell
    #[arg(value_enum)]
    pub shell: Shell,
}

const MAN: &str = "\
Writes the manual page to stdout, or with --dir a page for every verb.

  switchback man | man -l -
  switchback man --dir /usr/local/share/man/man1";

/// `man`
#[derive(Debug, Args)]
pub struct Man {
    /// Writes a page for every verb into this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
