//! What stands below the services on the sheet of `switchback status`: the daemon, its disk, what went
//! wrong lately, and what was done last. Pure.

use jiff::Timestamp;

use super::console::{Line, Look, Signs, columns};
use super::figures;
use crate::controller::status::{DaemonStatus, EventRecord};
use crate::telemetry::audit::Entry;

/// Operations and troubles that are shown.
pub const SHOWN: usize = 5;
/// Below this a pull, an archive or the state itself may fail midway.
const LITTLE: u64 = 1_000_000_000;

/// What went wrong lately.
pub fn troubles(events: &[EventRecord]) -> Vec<&EventRecord> {
    let is_well = |text: &str| {
        [" is healthy", " is stopped", "last output"].iter().any(|part| text.contains(part))
    };
    let ill = |event: &&EventRecord| {
        matches!(event.phase.as_deref(), Some("rolling_back"))
            || event.kind == "instance" && !is_well(&event.message)
            || event.kind == "runtime"
    };
    let troubles: Vec<&EventRecord> = events.iter().filter(ill).collect();
    let from = troubles.len().saturating_sub(SHOWN);
    troubles.into_iter().skip(from).collect()
}

/// The sheet's foot.
pub fn lines(
    daemon: &DaemonStatus,
    events: &[EventRecord],
    done: &[Entry],
    signs: Signs,
    now: Timestamp,
) -> Vec<Line> {
    let up = figures::seconds_until(&daemon.started, now).unwrap_or(0.0);
    let mut text =
        format!("{} up {}, on {}", daemon.version, figures::duration(up.floor()), places(daemon));
    match daemon.docker {
        Some(true) => text.push_str("; the Docker engine answers"),
        Some(false) => text.push_str("; the Docker engine does not answer"),
        None => {}
    }
    let mut line = Line::new().and(Look::Faint, "daemon    ").plain(&text);
    if let Some(free) = daemon.disk_free {
        let look = if free < LITTLE { Look::Bad } else { Look::Plain };
        line = line.plain("; ").and(look, &format!("{} of disk free", figures::bytes(free)));
    }
    let mut lines = vec![line];
    let troubles = troubles(events);
    if !troubles.is_empty() {
        lines.push(Line::new().and(Look::Faint, "lately"));
    }
    let row = |event: &&EventRecord| {
        vec![
            (Look::Faint, figures::clock(&event.at).to_owned()),
            (Look::Strong, event.service.clone().unwrap_or_else(|| signs.none.to_owned())),
            (super::events::look(event), event.message.lines().next().unwrap_or("").to_owned()),
        ]
    };
    lines.extend(columns(&troubles.iter().map(row).collect::<Vec<_>>(), &[], 2));
    if !done.is_empty() {
        lines.push(Line::new().and(Look::Faint, "last done"));
    }
    let from = done.len().saturating_sub(SHOWN);
    let row = |entry: &Entry| {
        let well = matches!(entry.outcome.as_str(), "done" | "promoted");
        let look = if well { Look::Good } else { Look::Bad };
        let rollout = entry.rollout.map(|rollout| format!("rollout {rollout}"));
        vec![
            (Look::Faint, entry.at.get(..19).unwrap_or(&entry.at).replace('T', " ")),
            (Look::Plain, entry.says.clone().unwrap_or_else(|| entry.who.clone())),
            (Look::Strong, entry.verb.clone()),
            (Look::Plain, entry.service.clone().unwrap_or_default()),
            (look, entry.outcome.replace('_', " ")),
            (Look::Plain, entry.detail.clone().or(rollout).unwrap_or_default()),
        ]
    };
    lines.extend(columns(&done[from..].iter().map(row).collect::<Vec<_>>(), &[], 2));
    lines
}

fn places(daemon: &DaemonStatus) -> String {
    if daemon.listen.is_empty() { "no address".to_owned() } else { daemon.listen.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_foot_says_how_the_daemon_is_and_what_was_done() {
        let daemon: DaemonStatus = serde_json::from_value(serde_json::json!({
            "version": "0.1.0", "started": "2026-11-21T09:00:00Z", "docker": false,
            "listen": ["http://0.0.0.0:80"], "notes": [], "stopping": false, "disk_free": 4_000_000,
        }))
        .unwrap();
        let event: EventRecord = serde_json::from_value(serde_json::json!({
            "id": 7, "at": "2026-11-21T09:59:00.000Z", "service": "web", "rollout": 12,
            "kind": "phase", "phase": "rolling_back", "weight": 0.0,
            "message": "rolling back: errors 5 %\n  more",
        }))
        .unwrap();
        let done = Entry {
            at: "2026-11-21T09:58:00.000Z".to_owned(),
            verb: "deploy".to_owned(),
            service: Some("web".to_owned()),
            who: "root".to_owned(),
            says: Some("ann@box".to_owned()),
            outcome: "done".to_owned(),
            rollout: Some(12),
            ..Entry::default()
        };
        let now = "2026-11-21T10:00:00Z".parse().unwrap();
        let (mut console, out, _) = super::super::tests::written();
        for line in lines(&daemon, &[event], &[done], console.signs(), now) {
            console.data(line);
        }
        assert_eq!(
            out.text(),
            "daemon    0.1.0 up 1h00m, on http://0.0.0.0:80; the Docker engine does not answer; \
             4.0 MB of disk free\nlately\n  09:59:00  web  rolling back: errors 5 %\nlast done\n  \
             2026-11-21 09:58:00  ann@box  deploy  web  done  rollout 12\n"
        );
    }
}
