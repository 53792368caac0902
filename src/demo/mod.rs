//! The whole story on one machine, nothing to configure: `switchback demo`.
//!
//! A real daemon in this process, on a free port of loopback and with its state in a directory that
//! is removed again; a sample app as child processes or containers; bounded load; four releases. It
//! measures what it shows from the outside (what clients got) and at the live routing table (when
//! the canary's weight was 0). It touches nothing that it did not make, and ends by itself.

pub mod image;
mod load;
pub mod sample;
mod show;
mod story;
mod watcher;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::app::{House, OpenError};
use crate::config::{self, Config, Input};
use crate::controller::closing::Leave;
use crate::controller::handle::Refused;
use crate::controller::status::DeployRequest;
use crate::model::id::RolloutId;
use crate::runtime::RuntimeError;
use crate::runtime::docker::DockerRuntime;

pub use show::Show;
pub use story::{Outcome, Story};

/// No demo lasts longer than this, whatever happens.
const LONGEST: Duration = Duration::from_secs(88);
/// Requests per second, at which the promises of the README are made.
pub const RATE: u32 = 1_000;
/// How long visitors may take to get their last answers.
const DRAIN: Duration = Duration::from_secs(2);
/// The name of the image made for the demo, which two at once do not share.
fn image_name() -> String {
    format!("switchback-demo:{}", std::process::id())
}

/// Which runtime launches the sample app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoRuntime {
    /// Child processes.
    Process,
    /// Containers on the Docker engine.
    Docker,
}

/// What the demo is told.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What launches.
    pub runtime: DemoRuntime,
    /// Requests per second.
    pub rate: u32,
}

/// Why the demo could not be given.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The daemon did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The daemon refused something.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The engine refused something.
    #[error(transparent)]
    Docker(#[from] RuntimeError),
    /// The machine did.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The first revision did not come up.
    #[error("the sample app did not start: {0}")]
    NotStarted(String),
    /// It took too long.
    #[error("the demo took longer than {LONGEST:?} and was ended")]
    TooLong,
}

/// Gives the demo. Everything that it made is gone when this returns.
pub async fn run(options: Options, show: &mut Show) -> Result<Vec<Outcome>, DemoError> {
    let system = |what| move |source| DemoError::System { what, source };
    let dir = std::env::temp_dir().join(format!("switchback-demo-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(system("a directory for the demo's state"))?;
    let result = in_directory(options, &dir, show).await;
    if let Err(error) = std::fs::remove_dir_all(&dir) {
        tracing::warn!(dir = %dir.display(), %error, "not removed");
    }
    result
}

async fn in_directory(
    options: Options,
    dir: &Path,
    show: &mut Show,
) -> Result<Vec<Outcome>, DemoError> {
    let system = |what| move |source| DemoError::System { what, source };
    let docker = docker_host();
    let mut image = None;
    if options.runtime == DemoRuntime::Docker {
        show.say("making an image of the sample app");
        let program = std::env::current_exe().map_err(system("where this program is"))?;
        let tar = tokio::task::spawn_blocking(move || image::root_file_system(&program))
            .await
            .map_err(|error| DemoError::NotStarted(error.to_string()))?
            .map_err(system("the sample app's image"))?;
        let engine = DockerRuntime::new(&docker, "demo")?;
        engine.import(&image_name(), tar, image::PROGRAM).await?;
        image = Some(engine);
    }
    let result = with_image(options, dir, &docker, show).await;
    if let Some(engine) = image
        && let Err(error) = engine.remove_image(&image_name()).await
    {
        tracing::warn!(%error, "the sample app's image was not removed");
    }
    result
}

async fn with_image(
    options: Options,
    dir: &Path,
    docker: &str,
    show: &mut Show,
) -> Result<Vec<Outcome>, DemoError> {
    let config = configuration(options.runtime, dir, docker)?;
    let again = config.clone();
    let house = House::open(config, Box::new(move || Ok(again.clone()))).await?;
    let stories = tokio::time::timeout(LONGEST, tell_all(&house, options, show)).await;
    house.close(DRAIN, Leave::Nothing).await;
    stories.map_err(|_| DemoError::TooLong)?
}

async fn tell_all(
    house: &House,
    options: Options,
    show: &mut Show,
) -> Result<Vec<Outcome>, DemoError> {
    let first = story::ended(house.handle(), RolloutId(1));
    let first = wait_for_first(house, first).await?;
    if first != "promoted" {
        return Err(DemoError::NotStarted(first));
    }
    let Some(address) = house.addresses().http.first().copied() else {
        return Err(DemoError::NotStarted("the proxy has no address".to_owned()));
    };
    let seen = Arc::new(load::Seen::default());
    let stop = CancellationToken::new();
    let visitors = load::run(address, options.rate, Arc::clone(&seen), stop.clone());
    let visitors = tokio::spawn(visitors);
    show.begin(address, options.rate);
    let mut outcomes = Vec::new();
    for story in Story::ALL {
        let env = BTreeMap::from([("SAMPLE_FAULT".to_owned(), story.fault().to_owned())]);
        let request = DeployRequest { env, ..DeployRequest::default() };
        show.story(story);
        let telling = story::tell(house, story, request, &seen);
        let outcome = show.follow(house.handle().clone(), telling).await?;
        show.outcome(story, &outcome);
        outcomes.push(outcome);
    }
    stop.cancel();
    let _ = visitors.await;
    show.table(&outcomes);
    Ok(outcomes)
}

/// Waits for the first revision, which the daemon launches by itself.
async fn wait_for_first(
    house: &House,
    first: impl Future<Output = Result<crate::controller::status::RolloutRecord, Refused>>,
) -> Result<String, DemoError> {
    let begun = async {
        loop {
            let services = house.handle().services();
            let service = services.first();
            if service.is_some_and(|service| service.rollout.is_some()) {
                return None;
            }
            let (events, _) = house.handle().events_after(0);
            let refused = events.iter().find(|e| e.message.starts_with("cannot deploy"));
            if let Some(refused) = refused {
                return Some(refused.message.clone());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if let Some(refused) = begun.await {
        return Ok(refused);
    }
    let record = first.await?;
    Ok(record.cause.unwrap_or(record.phase))
}

fn docker_host() -> String {
    let set = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    set.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned())
}

/// The demo's configuration, as text like anyone's.
fn configuration(runtime: DemoRuntime, dir: &Path, docker: &str) -> Result<Config, DemoError> {
    let system = |what| move |source| DemoError::System { what, source };
    let program = std::env::current_exe().map_err(system("where this program is"))?;
    let source = match runtime {
        DemoRuntime::Process => {
            format!("command = [{:?}, \"sample-app\", \"--port\", \"{{port}}\"]", program)
        }
        DemoRuntime::Docker => {
            format!(
                "image = {:?}\nargs = [\"sample-app\", \"--port\", \"3000\"]\nport = 3000",
                image_name()
            )
        }
    };
    let state = dir.join("state");
    let socket = dir.join("admin.sock");
    // Steps are shorter than the defaults: the demo has more requests than patience. A step that
    // shows nothing in 5 s goes on, because a minute is all there is; regressions count as ever.
    let text = format!(
        "[listen]\nhttp = \"127.0.0.1:0\"\n\
         [admin]\nsocket = {socket:?}\nlisten = \"off\"\n\
         [state]\ndir = {state:?}\n\
         [runtime]\ndocker = {docker:?}\n\
         [service.demo]\nhost = \"*\"\n{source}\n\
         bake = \"2s\"\nbake_max = \"5s\"\non_inconclusive = \"advance\"\n\
         keep_warm = \"5s\"\ndrain = \"2s\"\nstop_grace = \"2s\"\n\
         probe = {{ path = \"/up\", interval = \"250ms\", timeout = \"1s\" }}\n"
    );
    let input = Input {
        name: Path::new("demo"),
        text: &text,
        variables: &BTreeMap::new(),
        flags: &[],
        read: &|_| Err("the demo has no further files".to_owned()),
    };
    let parsed = config::parse(&input);
    parsed.map(|parsed| parsed.config).map_err(|problems| {
        DemoError::NotStarted(format!("its configuration is wrong: {problems:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_is_configured_like_any_service() {
        for runtime in [DemoRuntime::Process, DemoRuntime::Docker] {
            let config = configuration(runtime, Path::new("/tmp/x"), "unix:///var/run/docker.sock");
            let config = config.expect("a configuration");
            assert_eq!(config.services.len(), 1);
            assert!(config.admin.listen.is_empty());
        }
    }
}
