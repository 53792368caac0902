//! What a container has written.

use bollard::Docker;
use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt;

use super::DockerRuntime;
use super::client::{ANSWER, Trouble};
use crate::runtime::RuntimeError;

/// Bytes of output that are read at most: 50 lines of 16 KiB, the engine's own unit.
const LOG_BYTES: usize = 1024 * 1024;

/// A longer line is cut: it goes into a terminal or a JSON answer.
const LINE_CHARACTERS: usize = 4096;

impl DockerRuntime {
    /// The last lines of a container's output; none of one that is gone.
    pub(super) async fn tail(&self, id: &str, lines: usize) -> Result<Vec<String>, RuntimeError> {
        let options = LogsOptions {
            stdout: true,
            stderr: true,
            tail: lines.to_string(),
            ..LogsOptions::default()
        };
        let name = id.to_owned();
        let read = |docker: Docker| async move {
            let mut bytes = Vec::new();
            let mut output = std::pin::pin!(docker.logs(&name, Some(options)));
            while let Some(part) = output.next().await {
                bytes.extend_from_slice(&part?.into_bytes());
                if bytes.len() > LOG_BYTES {
                    break;
                }
            }
            Ok(bytes)
        };
        let bytes = match self.client.call("reading a container's output", ANSWER, read).await {
            Ok(bytes) => bytes,
            Err(Trouble::Refused { status: 404, .. }) => Vec::new(),
            Err(trouble) => return Err(trouble.into()),
        };
        let text = String::from_utf8_lossy(&bytes);
        let cut = |line: &str| line.chars().take(LINE_CHARACTERS).collect();
        Ok(text.lines().map(cut).collect())
    }
}
