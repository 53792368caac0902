//! Verbs that are the daemon, or talk to it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{Output, Source, duration, freeze, keeping, maintenance, tester, watching};
use crate::cli::exit::EXIT_CODES;
use crate::config::scalar;
use crate::model::id::{RevisionId, RolloutId, ServiceName};
use crate::model::weight::{Side, Weight};
use crate::rollout::plan::Steps;
use crate::rollout::strategy::Strategy;

/// Verbs that are the daemon, or talk to it.
#[derive(Debug, Subcommand)]
pub enum Daemon {
    /// Serves: proxy and controller in the foreground
    #[command(display_order = 10, long_about = RUN, after_long_help = EXIT_CODES)]
    Run(Run),
    /// Tells the whole story on this machine, with nothing to configure
    #[command(display_order = 11, long_about = DEMO)]
    Demo(Demo),
    /// Reads the configuration again
    #[command(display_order = 21)]
    Reload(Plain),
    /// Carries a new revision to 100%, or takes it back
    #[command(display_order = 30, long_about = DEPLOY, after_long_help = EXIT_CODES)]
    Deploy(Deploy),
    /// Takes over a container that somebody else runs
    #[command(display_order = 52, long_about = keeping::ADOPT)]
    Adopt(keeping::Adopt),
    /// Shows how services stand
    #[command(display_order = 31, long_about = STATUS, after_long_help = EXIT_CODES)]
    Status(Status),
    /// Skips what is left of a step, or with --full of the rollout
    #[command(display_order = 34)]
    Promote(Promote),
    /// Ends a rollout: all traffic back to stable
    #[command(display_order = 35)]
    Abort(OneService),
    /// Holds a rollout at its step
    #[command(display_order = 36)]
    Pause(OneService),
    /// Lets a paused rollout go on
    #[command(display_order = 37)]
    Resume(OneService),
    /// Sets the canary's weight by hand
    #[command(display_order = 38, long_about = WEIGHT)]
    Weight(SetWeight),
    /// Returns to an earlier revision
    #[command(display_order = 39, long_about = ROLLBACK)]
    Rollback(Rollback),
    /// Keeps visitors from a service while it is worked on
    #[command(display_order = 41, long_about = maintenance::MAINTENANCE)]
    Maintenance(maintenance::Maintenance),
    /// Says that a promotion stands, where `confirm_within` asks for it
    #[command(display_order = 40)]
    Confirm(OneService),
    /// Lets no deploy of a service begin, or of any (--all)
    #[command(display_order = 42)]
    Freeze(freeze::Freeze),
    /// Lets deploys of a service begin again
    #[command(display_order = 43)]
    Unfreeze(freeze::Unfreeze),
    /// Keeps and restores checkpoints
    #[command(display_order = 50, long_about = keeping::CHECKPOINT, subcommand_required = true, arg_required_else_help = true)]
    Checkpoint(keeping::Checkpoint),
    /// Frees what is ours and nobody needs any more
    #[command(display_order = 51, long_about = keeping::CLEAN)]
    Clean(keeping::Clean),
    /// Takes Switchback's own state to another host
    #[command(display_order = 53, long_about = keeping::STATE, subcommand_required = true, arg_required_else_help = true)]
    State(keeping::State),
    /// Lists the rollouts of a service
    #[command(display_order = 44)]
    History(OneServiceRead),
    /// Tells what happened in a rollout, and why
    #[command(display_order = 45)]
    Explain(Explain),
    /// Lists what happens
    #[command(display_order = 46)]
    Events(Events),
    /// Shows the output of a service's instances
    #[command(display_order = 47, long_about = watching::LOGS)]
    Logs(watching::Logs),
    /// Shows what each side of each service does, in one table
    #[command(display_order = 33, long_about = watching::STATS)]
    Stats(watching::Stats),
    /// Shows everything on the whole screen, live, with keys that act
    #[command(display_order = 32, long_about = watching::TOP)]
    Top(watching::Watching),
    /// Says what would stop a deploy today, and how to mend it
    #[command(display_order = 54, long_about = watching::DOCTOR)]
    Doctor(watching::Doctor),
    /// Lists what was done, by whom and from where
    #[command(display_order = 48, long_about = watching::AUDIT)]
    Audit(watching::Audit),
    /// Tries those who are told what happens
    #[command(display_order = 55, subcommand_required = true, arg_required_else_help = true)]
    Notify(watching::Notify),
    /// Makes a cookie that lets its holder choose a side
    #[command(display_order = 56, long_about = tester::TESTER_COOKIE)]
    TesterCookie(tester::TesterCookie),
    /// Holds one instance of the runtime `process`
    #[command(hide = true)]
    InstanceShim(InstanceShim),
    /// The app of the demo
    #[command(hide = true)]
    SampleApp(SampleApp),
}

/// Where the daemon is.
#[derive(Debug, Clone, Default, Args)]
pub struct Client {
    /// The daemon: unix:///run/switchback/admin.sock or http://HOST:9900 [default: the socket of the configuration]
    #[arg(long, env = "SWITCHBACK_HOST", value_name = "URL", help_heading = "Daemon")]
    pub host: Option<String>,
    /// The token of the admin API; best given by the variable
    #[arg(
        long,
        env = "SWITCHBACK_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        help_heading = "Daemon"
    )]
    pub token: Option<String>,
    /// The configuration in which the socket is looked up
    #[arg(short, long, value_name = "FILE", help_heading = "Daemon")]
    pub config: Option<PathBuf>,
}

const RUN: &str = "\
Serves: proxy and controller in the foreground.

  switchback run
  switchback run -c /etc/switchback/switchback.toml
  switchback run --set listen.http=127.0.0.1:8080 --set admin.listen=off

Signals: HUP reads the configuration again, USR2 hands over to a new process of the same path (an
upgrade), TERM and INT let requests finish and stop, a second one stops at once.";

/// `run`
#[derive(Debug, Args)]
pub struct Run {
    /// Which configuration.
    #[command(flatten)]
    pub source: Source,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", value_parser = ["auto", "text", "json"])]
    pub log_format: Option<String>,
}

const DEMO: &str = "\
Tells the whole story on this machine, with nothing to configure: a good revision is promoted; one
that answers errors, one that is slow and one that crashes are taken back.

  switchback demo
  switchback demo --runtime docker
  switchback demo --json              one JSON object per story";

/// `demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// What runs the sample app
    #[arg(long, value_enum, default_value_t = DemoRuntime::Process)]
    pub runtime: DemoRuntime,
    /// One JSON object per story, and nothing else
    #[arg(long)]
    pub json: bool,
}

/// What runs the sample app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DemoRuntime {
    /// Child processes
    Process,
    /// Containers
    Docker,
}

const DEPLOY: &str = "\
Carries a new revision to 100%, or takes it back, and follows it to the end.

  switchback deploy web:v2                             the image of the configuration, tag v2
  switchback deploy web --image ghcr.io/acme/web:v2
  switchback deploy web --build .                      build the image from here
  switchback deploy --git . --ref main                 build and deploy what changed in `paths`
  switchback deploy web --steps '1% 10% 100%' --bake 5m
  switchback deploy api --command ./api-v2 --port {port}
  switchback deploy old --endpoints 10.0.0.7:3000
  switchback deploy web:v2 --detach                    return at once; see `status -w`
  switchback deploy web:v2 --dry-run                   say what would happen

On a terminal the state is drawn live, on a pipe there is a line for each event, and with -o json an
object for each. Ctrl-C stops following, not the rollout.";

/// `deploy`
#[derive(Debug, Args)]
pub struct Deploy {
    /// The service, and after a colon the tag of its image; several of one group, or with --build and --git several or none
    #[arg(value_name = "SERVICE[:TAG]", required_unless_present_any = ["build", "git"])]
    pub services: Vec<Target>,
    /// Builds the image from this directory, as it is
    #[arg(long, value_name = "DIR", conflicts_with_all = ["image", "command", "endpoints", "git"])]
    pub build: Option<PathBuf>,
    /// Builds the image from a repository: its URL, or its path on this machine
    #[arg(long, value_name = "REPOSITORY", conflicts_with_all = ["image", "command", "endpoints"])]
    pub git: Option<String>,
    /// The branch, tag or commit
    #[arg(long = "ref", value_name = "REF", requires = "git")]
    pub reference: Option<String>,
    /// Deploys also what has not changed since the commit that serves
    #[arg(long)]
    pub force: bool,
    /// Another image
    #[arg(long, value_name = "IMAGE", conflicts_with_all = ["command", "endpoints"])]
    pub image: Option<String>,
    /// Another command; the rest of the line is its program and arguments
    #[arg(
        long,
        value_name = "WORD",
        num_args = 1..,
        allow_hyphen_values = true,
        conflicts_with = "endpoints"
    )]
    pub command: Option<Vec<String>>,
    /// Other addresses, separated by commas
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = address)]
    pub endpoints: Option<Vec<SocketAddr>>,
    /// An environment variable beside the configured ones; may be given again
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// How the new revision takes the place of the old one: canary, blue-green, rolling or recreate
    #[arg(long)]
    pub strategy: Option<Strategy>,
    /// The canary's weights, rising to 100%
    #[arg(long)]
    pub steps: Option<Steps>,
    /// The least time at a step
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub bake: Option<Duration>,
    /// Go past a freeze; that is written down
    #[arg(long = "override")]
    pub override_freeze: bool,
    /// Archive no checkpoint first, although `checkpoint` is "auto"
    #[arg(long)]
    pub no_checkpoint: bool,
    /// Return once the rollout has begun
    #[arg(short, long)]
    pub detach: bool,
    /// Say what would happen, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// A service and perhaps a tag: `web:v2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The service.
    pub service: ServiceName,
    /// The tag.
    pub tag: Option<String>,
}

impl FromStr for Target {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (service, tag) = match text.split_once(':') {
            Some((service, tag)) => (service, Some(tag.to_owned())),
            None => (text, None),
        };
        if service.contains(['/', '.']) {
            return Err("this looks like an image: write SERVICE --image IMAGE".to_owned());
        }
        if tag.as_deref().is_some_and(str::is_empty) {
            return Err("the tag after the colon is missing".to_owned());
        }
        let service = ServiceName::new(service).map_err(|error| error.to_string())?;
        Ok(Self { service, tag })
    }
}

const STATUS: &str = "\
Shows how services stand.

  switchback status                 all services
  switchback status web -w          one service, live, until its rollout ends
  switchback status web -o json
  switchback status --sheet -o json all that the text shows

With a service, the exit code tells how it stands: 0 healthy or promoted, 3 rolled back by the
analysis, 4 aborted, 5 never became healthy.";

/// `status`
#[derive(Debug, Args)]
pub struct Status {
    /// The service; all when left out
    pub service: Option<Service>,
    /// Watches until the rollout ends
    #[arg(short, long)]
    pub watch: bool,
    /// With -o json: one object with the daemon, all services, and what happened and was done last
    #[arg(long, conflicts_with_all = ["service", "watch"])]
    pub sheet: bool,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// A service by name, as clap parses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service(pub ServiceName);

impl FromStr for Service {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        ServiceName::new(text).map(Self).map_err(|error| error.to_string())
    }
}

/// A verb without arguments.
#[derive(Debug, Args)]
pub struct Plain {
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// A verb on one service.
#[derive(Debug, Args)]
pub struct OneService {
    /// The service
    pub service: Service,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// A verb that reads one service.
#[derive(Debug, Args)]
pub struct OneServiceRead {
    /// The service
    pub service: Service,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// `promote`
#[derive(Debug, Args)]
pub struct Promote {
    /// The service
    pub service: Service,
    /// Skips all steps: the canary becomes stable now
    #[arg(long)]
    pub full: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

const WEIGHT: &str = "\
Sets the canary's weight by hand. The rollout pauses there; `resume` lets it go on.

  switchback weight web 12.5%
  switchback weight web 0";

/// `weight`
#[derive(Debug, Args)]
pub struct SetWeight {
    /// The service
    pub service: Service,
    /// The canary's weight, as fine as 0.01%
    #[arg(value_name = "PERCENT")]
    pub weight: Weight,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

const ROLLBACK: &str = "\
Returns to an earlier revision: at once while it is still warm, by a deploy of it otherwise.

  switchback rollback web            the revision before
  switchback rollback web --to 3     see `switchback history web`
  switchback rollback web api        services of one group, to what they had before their last
                                     deploy together, all of them or none";

/// `rollback`
#[derive(Debug, Args)]
pub struct Rollback {
    /// The service, or several of one group
    #[arg(value_name = "SERVICE", required = true)]
    pub services: Vec<Service>,
    /// The number of the revision
    #[arg(long, value_name = "REVISION", value_parser = revision)]
    pub to: Option<RevisionId>,
    /// Archive no checkpoint first, although `checkpoint` is "auto"
    #[arg(long)]
    pub no_checkpoint: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// `explain`
#[derive(Debug, Args)]
pub struct Explain {
    /// The number of the rollout, as `history` lists it
    #[arg(value_parser = rollout)]
    pub rollout: RolloutId,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// `events`
#[derive(Debug, Args)]
pub struct Events {
    /// Goes on as things happen
    #[arg(short, long)]
    pub follow: bool,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// `instance-shim`
#[derive(Debug, Args)]
pub struct InstanceShim {
    /// The directory of the instance
    #[arg(long)]
    pub dir: PathBuf,
}

/// `sample-app`
#[derive(Debug, Args)]
pub struct SampleApp {
    /// Where it listens, on all addresses
    #[arg(long, default_value_t = 3000)]
    pub port: u16,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    scalar::address(text)
}

pub(super) fn revision(text: &str) -> Result<RevisionId, String> {
    let number = text.parse().ok().filter(|number| *number > 0).map(RevisionId);
    number.ok_or_else(|| "expected the number of a revision, from 1 on".to_owned())
}

fn rollout(text: &str) -> Result<RolloutId, String> {
    let number = text.parse().ok().filter(|number| *number > 0).map(RolloutId);
    number.ok_or_else(|| "expected the number of a rollout, from 1 on".to_owned())
}

pub(super) fn side(text: &str) -> Result<Side, String> {
    let found = Side::BOTH.into_iter().find(|side| side.as_str() == text);
    found.ok_or_else(|| "expected \"stable\" or \"canary\"".to_owned())
}
