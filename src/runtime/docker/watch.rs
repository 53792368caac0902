//! What the engine tells by itself: containers that ended, health that changed, and whether it can
//! be reached at all.
//!
//! ```text
//!   ┌▶ agree ─▶ note the engine's clock ─▶ Connected ─▶ events since then … ─┐ broken, or the
//!   └──── pause, longer each time ◀── Disconnected{reason} (once) ◀──────────┘ engine is silent
//! ```
//!
//! Invariant: whoever lists after `Connected` misses nothing: the events begin at a time, by the
//! engine's own clock, that lies before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptions;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::client::{ANSWER, Client, Trouble};
use super::{LAST_LINES, container, hardening, output};
use crate::model::id::InstanceId;
use crate::model::instance::Exit;
use crate::runtime::{RuntimeError, RuntimeEvent};

/// The first pause after a lost connection: an engine that restarts is back within a second or so.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause: what an operator who has just started Docker is willing to wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How often a silent engine is asked whether it lives: a hung one sends no events either.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// When to look whether a container was killed for its memory limit: at once, and twice more. The
/// engine is a few milliseconds late, if at all; a release that failed waits for this.
const OOM_PAUSES: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(150)];

/// How long the last words of a container that ended are waited for: its end is told then without them.
const HINT: Duration = Duration::from_secs(2);

/// SIGKILL, by which the kernel ends what takes too much.
const KILL: i32 = 9;

/// Why a session ended.
enum End {
    /// Nobody listens any more.
    Unwatched,
    /// The engine is not there.
    Lost(String),
}

/// Watches until nobody listens.
///
/// Cancel safety: may be dropped at any time.
pub async fn watch(client: Arc<Client>, daemon: String, events: mpsc::Sender<RuntimeEvent>) {
    let mut pause = FIRST_PAUSE;
    let mut told = None;
    loop {
        let mut connected = None;
        let end = tokio::select! {
            end = session(&client, &daemon, &events, &mut connected) => end,
            () = events.closed() => End::Unwatched,
        };
        let End::Lost(reason) = end else { return };
        if let Some(since) = connected {
            told = None;
            // An engine that lets go at once (a socket proxy that forbids events) is not hurried.
            if since.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
        }
        if told.as_ref() != Some(&reason) {
            tracing::warn!(%reason, "the Docker Engine cannot be reached");
            let event = RuntimeEvent::Disconnected { reason: reason.clone() };
            if events.send(event).await.is_err() {
                return;
            }
            told = Some(reason);
        }
        // Jitter, so that several daemons do not come back together.
        let wait = pause.mul_f64(0.75 + 0.5 * fastrand::f64());
        tokio::select! {
            () = sleep(wait) => {}
            () = events.closed() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn session(
    client: &Client,
    daemon: &str,
    events: &mpsc::Sender<RuntimeEvent>,
    connected: &mut Option<Instant>,
) -> End {
    let lost = |trouble: Trouble| End::Lost(RuntimeError::from(trouble).to_string());
    let info = |docker: Docker| async move { docker.info().await };
    let clock = match client.call("asking for its clock", ANSWER, info).await {
        Ok(info) => info.system_time.and_then(|time| since(&time)),
        // A socket proxy may forbid the question; then what happens while we subscribe may be missed.
        Err(Trouble::Refused { .. }) => None,
        Err(trouble) => return lost(trouble),
    };
    let docker = match client.engine().await {
        Ok(docker) => docker,
        Err(error) => return End::Lost(error.to_string()),
    };
    let filters = HashMap::from([
        ("type".to_owned(), vec!["container".to_owned()]),
        ("label".to_owned(), vec![format!("{}={daemon}", container::DAEMON)]),
    ]);
    let options = EventsOptions { since: clock, until: None, filters: Some(filters) };
    let mut stream = std::pin::pin!(docker.events(Some(options)));
    *connected = Some(Instant::now());
    if events.send(RuntimeEvent::Connected).await.is_err() {
        return End::Unwatched;
    }
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            message = stream.next() => match message {
                Some(Ok(message)) => {
                    if let Some(event) = translate(client, &message).await
                        && events.send(event).await.is_err()
                    {
                        return End::Unwatched;
                    }
                }
                Some(Err(error)) => return lost(client.explain(error)),
                None => return End::Lost(format!(
                    "the Docker Engine at {} closed the connection: it stops or restarts", client.host()
                )),
            },
            _ = heartbeat.tick() => {
                let ping = |docker: Docker| async move { docker.ping().await };
                if let Err(trouble) = client.call("asking whether it lives", ANSWER, ping).await {
                    return lost(trouble);
                }
            }
        }
    }
}

/// The engine's clock in the form in which it takes times: seconds, point, nanoseconds.
fn since(time: &str) -> Option<String> {
    let time: jiff::Timestamp = time.parse().ok()?;
    Some(format!("{}.{:09}", time.as_second(), time.subsec_nanosecond()))
}

async fn translate(client: &Client, message: &EventMessage) -> Option<RuntimeEvent> {
    let actor = message.actor.as_ref()?;
    let id = actor.id.as_deref()?;
    let instance = InstanceId::new(id);
    match message.action.as_deref()? {
        "health_status: healthy" => Some(RuntimeEvent::Health { instance, healthy: true }),
        "health_status: unhealthy" => Some(RuntimeEvent::Health { instance, healthy: false }),
        "die" => {
            let code = actor.attributes.as_ref().and_then(|all| all.get("exitCode")?.parse().ok());
            let told = code.map(container::exit_of).unwrap_or_default();
            // The event does not say whether it was for memory.
            let out_of_memory = out_of_memory(client, id, &told).await;
            let hint = match told.code {
                Some(0) => None,
                _ if out_of_memory => None,
                // Whoever routes around it waits for this.
                _ => timeout(HINT, hint(client, id)).await.ok().flatten(),
            };
            let exit = Exit { out_of_memory, hint, ..told };
            Some(RuntimeEvent::Ended { instance, exit })
        }
        _ => None,
    }
}

/// What the last output of a container that ended tells of what it is not allowed to do.
async fn hint(client: &Client, id: &str) -> Option<String> {
    let name = id.to_owned();
    let inspect = |docker: Docker| async move { docker.inspect_container(&name, None).await };
    let found = client.call("looking at a container that ended", ANSWER, inspect).await.ok()?;
    let lines = output::tail(client, id, LAST_LINES).await.ok()?;
    hardening::hint_of(&found, &lines).map(str::to_owned)
}

/// Whether a container ended for want of memory. The engine learns that on another path than the end
/// itself, and may note it a moment later.
async fn out_of_memory(client: &Client, id: &str, told: &Exit) -> bool {
    for pause in OOM_PAUSES {
        sleep(pause).await;
        let id = id.to_owned();
        let inspect = |docker: Docker| async move { docker.inspect_container(&id, None).await };
        // Removed meanwhile, or the engine is gone: nobody can tell any more.
        let found = client.call("looking at a container that ended", ANSWER, inspect).await;
        let Ok(found) = found else { return false };
        let limited = found.host_config.and_then(|host| host.memory).unwrap_or(0) > 0;
        if found.state.and_then(|state| state.oom_killed).unwrap_or(false) {
            return true;
        }
        if told.signal != Some(KILL) || !limited {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::since;

    #[test]
    fn the_engines_clock_is_handed_back_in_its_form() {
        assert_eq!(since("1970-01-01T00:00:02.5Z").unwrap(), "2.500000000");
        assert_eq!(since("1970-01-01T01:00:02.000000001+01:00").unwrap(), "2.000000001");
        assert_eq!(since("yesterday"), None);
    }
}
