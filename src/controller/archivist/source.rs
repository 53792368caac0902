//! Where the bytes of a part come from.

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use crate::model::id::InstanceId;
use crate::runtime::RuntimeError;
use crate::runtime::docker::DockerRuntime;
use crate::runtime::docker::data::Flow;
use crate::runtime::rank;

/// Bytes of what a failing command said that are told.
const SAID: u64 = 600;

/// Where the bytes of a part come from.
pub(super) enum Source {
    /// From memory.
    Bytes(Vec<u8>),
    /// An image of the engine.
    Image(String),
    /// A volume of the engine, read with the help of an image.
    Volume(String, String),
    /// What a command in a container prints.
    InContainer(InstanceId, Vec<String>, Duration),
    /// What a command on this machine prints.
    Here(Vec<String>, BTreeMap<String, String>, Duration),
}

impl Source {
    /// The bytes as they come. Begins now.
    pub(super) async fn open(self, docker: &Arc<DockerRuntime>) -> Result<Flow, RuntimeError> {
        match self {
            Self::Bytes(bytes) => {
                Ok(Box::pin(futures_util::stream::once(async move { Ok(bytes.into()) })))
            }
            Self::Image(id) => docker.save_image(&id).await,
            Self::Volume(source, image) => docker.read_volume(&source, &image).await,
            Self::InContainer(instance, command, within) => {
                docker.run_in(&instance, &command, within).await
            }
            Self::Here(command, env, within) => run_here(&command, env, within).await,
        }
    }
}

/// Runs a command on this machine with the environment of the app. It is killed when nobody reads what
/// it prints any more, or when it takes too long.
async fn run_here(
    command: &[String],
    env: BTreeMap<String, String>,
    within: Duration,
) -> Result<Flow, RuntimeError> {
    let program = command.first().cloned().unwrap_or_default();
    let mut run = Command::new(&program);
    run.args(command.iter().skip(1)).envs(env).kill_on_drop(true);
    run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = rank::spawn(run)
        .await
        .map_err(|error| RuntimeError::Failed(format!("{program} does not start: {error}")))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (Some(out), Some(err)) = (out, err) else {
        return Err(RuntimeError::Failed(format!("{program} has no output")));
    };
    let said = tokio::spawn(async move {
        let mut said = Vec::new();
        let mut err = err;
        // The rest is read too, so that the command is not held up by it.
        let _ = (&mut err).take(SAID).read_to_end(&mut said).await;
        let _ = tokio::io::copy(&mut err, &mut tokio::io::sink()).await;
        String::from_utf8_lossy(&said).trim().to_owned()
    });
    let (sender, receiver) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        let mut pieces = ReaderStream::new(out);
        let reading = async {
            while let Some(piece) = pieces.next().await {
                if sender.send(piece).await.is_err() {
                    return Ok(());
                }
            }
            match child.wait().await {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => {
                    Err(format!("ended with {status}: {}", said.await.unwrap_or_default()))
                }
                Err(error) => Err(error.to_string()),
            }
        };
        let trouble = match timeout(within, reading).await {
            Ok(Ok(())) => return,
            Ok(Err(trouble)) => format!("{program} {trouble}"),
            Err(_) => format!("{program} took longer than {within:?}"),
        };
        let _ = sender.send(Err(io::Error::other(trouble))).await;
    });
    Ok(Box::pin(futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    })))
}
