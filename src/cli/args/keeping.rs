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
100% like any other. Volumes are restored into new ones; what is live is never written over.";

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
