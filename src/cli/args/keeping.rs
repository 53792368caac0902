//! Verbs for what is kept: checkpoints, and what nobody needs any more.

use clap::{Args, Subcommand};

use super::Output;
use super::daemon::{Client, Service};

/// `checkpoint`
#[derive(Debug, Args)]
pub struct Checkpoint {
    /// What to do.
    #[command(subcommand)]
    pub verb: CheckpointVerb,
}

/// What `checkpoint --help` says.
pub const CHECKPOINT: &str = "\
Keeps and restores checkpoints: one file each, with the configuration, the revision, its image, the
volumes that `backup.volumes` names, and what `backup.command` prints.

  switchback checkpoint create web --note 'the last day it worked'
  switchback checkpoint ls
  switchback checkpoint verify web-20261121-101500-r3 --restore-test
  switchback checkpoint restore web web-20261121-101500-r3

A restore checks all of the archive, archives what serves now, and carries the archived revision to
100% like any other, but for before_deploy and on_rollback, which do not run: what was archived together
stays together. Volumes are restored into new ones; what is live is never written over.";

/// `checkpoint …`
#[derive(Debug, Subcommand)]
pub enum CheckpointVerb {
    /// Archives what serves now
    Create(Create),
    /// Lists checkpoints, newest first
    Ls(Ls),
    /// Reads all of a checkpoint and checks it
    Verify(Verify),
    /// Brings a checkpoint back beside what serves, and carries it to 100%
    Restore(Restore),
    /// Removes checkpoints
    Rm(Rm),
}

/// `checkpoint create`
#[derive(Debug, Args)]
pub struct Create {
    /// The service
    pub service: Service,
    /// Why it is made
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// `checkpoint ls`
#[derive(Debug, Args)]
pub struct Ls {
    /// The service; all when left out
    pub service: Option<Service>,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// `checkpoint verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Its id, as `checkpoint ls` lists it, or the path of an archive on the daemon's machine
    #[arg(value_name = "CHECKPOINT")]
    pub id: String,
    /// Brings it up on the side, asks whether it is healthy, and throws that away
    #[arg(long)]
    pub restore_test: bool,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// `checkpoint restore`
#[derive(Debug, Args)]
pub struct Restore {
    /// The service
    pub service: Service,
    /// Its id, as `checkpoint ls` lists it, or the path of an archive on the daemon's machine
    #[arg(value_name = "CHECKPOINT")]
    pub id: String,
    /// Return once the rollout has begun
    #[arg(short, long)]
    pub detach: bool,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// `checkpoint rm`
#[derive(Debug, Args)]
pub struct Rm {
    /// Their ids, as `checkpoint ls` lists them
    #[arg(value_name = "CHECKPOINT", required = true)]
    pub ids: Vec<String>,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// What `clean --help` says.
pub const CLEAN: &str = "\
Shows what is ours and nobody needs any more: containers that ended, images of revisions that are not
kept, restored volumes without a revision, old checkpoints. With --yes it is freed. What is not ours
is never touched.

  switchback clean
  switchback clean --yes";

/// `clean`
#[derive(Debug, Args)]
pub struct Clean {
    /// Free it
    #[arg(long)]
    pub yes: bool,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// What `state --help` says.
pub const STATE: &str = "\
Takes Switchback's own state to another host: services, revisions with their settings, past rollouts.
Not the configuration file, and not the data of apps, which checkpoints have.

  switchback state export switchback.state
  scp switchback.state other: && ssh other switchback state import switchback.state

An export has the environment of revisions, and with it passwords. Import while no daemon runs; the
next one starts what was stable, and pulls images that are not there.";

/// `state`
#[derive(Debug, Args)]
pub struct State {
    /// What to do.
    #[command(subcommand)]
    pub verb: StateVerb,
}

/// `state …`
#[derive(Debug, Subcommand)]
pub enum StateVerb {
    /// Writes the state of a daemon that runs into a file
    Export(Export),
    /// Reads a state into the state directory, while no daemon runs
    Import(Import),
}

/// `state export`
#[derive(Debug, Args)]
pub struct Export {
    /// Where to write it; what exists is not overwritten
    #[arg(value_name = "FILE")]
    pub file: std::path::PathBuf,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}

/// `state import`
#[derive(Debug, Args)]
pub struct Import {
    /// What `state export` wrote
    #[arg(value_name = "FILE")]
    pub file: std::path::PathBuf,
    /// Puts a state that is there aside, as `state.redb.before-import`
    #[arg(long)]
    pub replace: bool,
    /// Which configuration.
    #[command(flatten)]
    pub source: super::Source,
}

/// What `adopt --help` says.
pub const ADOPT: &str = "\
Takes over a container that runs, also one that compose made: another one with the same image,
environment, mounts, networks, aliases, labels, limits and log driver becomes stable, and later
deploys clone that with the new image. The container itself is left alone; stop it when nobody asks
it any more. Its published ports are not taken over: visitors come through the proxy.

  switchback adopt shop-web-1 --service web

The service is configured with the image's name and the port; nothing of it may run yet. To take over
what runs is no release: no hook runs and no webhook is asked. The probe and the smoke tests are put to
the new container before it has visitors.";

/// `adopt`
#[derive(Debug, Args)]
pub struct Adopt {
    /// The container's name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// The service; may be left out where there is one
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<Service>,
    /// Return once it has begun
    #[arg(short, long)]
    pub detach: bool,
    /// How data is written.
    #[command(flatten)]
    pub output: Output,
    /// Where the daemon is.
    #[command(flatten)]
    pub client: Client,
}
