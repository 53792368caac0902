//! What a container uses, and what the engine's machine has left.

use std::path::Path;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{InspectContainerOptions, StatsOptions};
use futures_util::StreamExt;

use super::DockerRuntime;
use super::client::Host;
use crate::runtime::room::{Room, Spent, Usage, open_files};

/// Adding up a container's files takes seconds on a busy disk; nobody waits longer for a figure.
const SIZE: Duration = Duration::from_secs(10);

impl DockerRuntime {
    /// What a container takes of processors and memory.
    pub(super) async fn spent_by(&self, id: &str) -> Option<Spent> {
        let name = id.to_owned();
        let stats = |docker: Docker| async move {
            let options = StatsOptions { stream: false, one_shot: true };
            std::pin::pin!(docker.stats(&name, Some(options))).next().await.transpose()
        };
        let stats = self.client.call("asking what a container uses", SIZE, stats).await.ok()??;
        let memory = stats.memory_stats?;
        let cached = memory.stats.as_ref().and_then(|stats| {
            // The names of control groups version 2 and 1.
            stats.get("inactive_file").or_else(|| stats.get("total_inactive_file")).copied()
        });
        let cpu = stats.cpu_stats.and_then(|cpu| cpu.cpu_usage?.total_usage);
        Some(Spent {
            cpu: Duration::from_nanos(cpu.unwrap_or(0)),
            memory: memory.usage?.saturating_sub(cached.unwrap_or(0)),
        })
    }

    /// What a container uses.
    pub(super) async fn used_by(&self, id: &str) -> Option<Usage> {
        let spent = self.spent_by(id).await?;
        let name = id.to_owned();
        let inspect = |docker: Docker| async move {
            let options = InspectContainerOptions { size: true };
            docker.inspect_container(&name, Some(options)).await
        };
        let found = self.client.call("measuring a container", SIZE, inspect).await.ok();
        let pid = found.as_ref().and_then(|found| found.state.as_ref()?.pid);
        let is_here = matches!(self.client.host(), Host::Unix(_));
        let pid = pid.filter(|pid| is_here && *pid > 0).and_then(|pid| i32::try_from(pid).ok());
        let written = found.and_then(|found| found.size_rw);
        Some(Usage {
            memory: spent.memory,
            disk: written.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
            files: pid.map_or(0, open_files),
        })
    }

    /// What the engine's machine has left, when that is this one.
    pub(super) async fn room_left(&self) -> Room {
        let Host::Unix(_) = self.client.host() else { return Room::default() };
        let info = |docker: Docker| async move { docker.info().await };
        let info = self.client.call("asking about the engine", super::ANSWER, info).await.ok();
        let root = info.and_then(|info| info.docker_root_dir);
        // A path that is not here belongs to an engine in a machine of its own: nothing is known of it.
        let Some(root) = root.filter(|root| Path::new(root).exists()) else {
            return Room::default();
        };
        let left = tokio::task::spawn_blocking(move || Room::here(Path::new(&root))).await;
        // Containers are not in our control group.
        let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let left = left.unwrap_or_default();
        Room {
            memory: crate::runtime::room::field(&info, "MemAvailable:"),
            memory_total: crate::runtime::room::field(&info, "MemTotal:"),
            ..left
        }
    }
}
