//! `switchback status`: how services are, once or again and again.
//!
//! A script may ask by exit code: 1 when a service shown has no healthy instance; for a service that
//! was named and whose last rollout went back, 3, 4 or 5 as `deploy` would have ended; else 0. With
//! `-w` a named service is watched until its rollout ends.

use std::time::Duration;

use jiff::Timestamp;

use super::client::Client;
use super::console::{Console, Line, Look, Signs};
use super::exit::Exit;
use super::stream::Told;
use super::trouble::{self, Trouble};
use super::{figures, live, sheet, watch};
use crate::controller::status::{
    DaemonStatus, EventRecord, InstanceStatus, ServiceStatus, SideStatus,
};
use crate::model::certificate::CertificateStatus;
use crate::telemetry::audit::Entry;

/// Certificates that fit on a line.
const SHOWN_CERTIFICATES: usize = 4;
/// Twice a second is as fast as a person compares numbers.
const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// What to show.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The service; all of them where nothing is said.
    pub service: Option<String>,
    /// Again and again, until interrupted.
    pub watch: bool,
    /// As JSON; an array, or an object for one service.
    pub json: bool,
    /// With `json`, all that stands on the sheet, as one object.
    pub sheet: bool,
}

/// What is known.
struct Seen {
    daemon: DaemonStatus,
    services: Vec<ServiceStatus>,
}

/// Shows how services are.
pub async fn run(client: &Client, console: &mut Console, options: Options) -> Exit {
    let shown = if options.watch {
        tokio::select! {
            watched = again(client, console, &options) => watched,
            _ = tokio::signal::ctrl_c() => {
                return Exit::Done;
            }
        }
    } else {
        once(client, console, &options).await
    };
    trouble::ended(console, shown)
}

async fn see(client: &Client, options: &Options) -> Result<Seen, Trouble> {
    let services = client.measured(options.service.as_deref()).await?;
    Ok(Seen { daemon: client.daemon().await?, services })
}

async fn once(client: &Client, console: &mut Console, options: &Options) -> Result<Exit, Trouble> {
    let seen = see(client, options).await?;
    if options.json && options.sheet {
        let (lately, done) = past(client).await?;
        console.json(&serde_json::json!({
            "daemon": seen.daemon,
            "services": seen.services,
            "lately": sheet::troubles(&lately),
            "done": done,
        }));
    } else if options.json {
        json(console, &seen, options);
    } else {
        for line in page(&seen, console.signs(), Timestamp::now()) {
            console.data(line);
        }
        if options.service.is_none() {
            foot(client, console, &seen).await?;
        }
    }
    standing(client, &seen, options).await
}

/// The daemon itself, what went wrong lately, and what was done last.
async fn foot(client: &Client, console: &mut Console, seen: &Seen) -> Result<(), Trouble> {
    let (events, done) = past(client).await?;
    console.data(Line::new());
    for line in sheet::lines(&seen.daemon, &events, &done, console.signs(), Timestamp::now()) {
        console.data(line);
    }
    Ok(())
}

/// What happened lately, and what was done last.
async fn past(client: &Client) -> Result<(Vec<EventRecord>, Vec<Entry>), Trouble> {
    // Neither is needed to say how services stand.
    let limit = [("limit", sheet::SHOWN.to_string())];
    let done = client.audit(&limit).await.unwrap_or_default();
    let mut events = Vec::new();
    let mut stream = client.events(Some(0), &[], false).await?;
    while let Ok(Some(told)) = stream.next().await {
        if let Told::Event(event) = told {
            events.push(*event);
        }
    }
    Ok((events, done))
}

/// How it stands, as an exit code.
async fn standing(client: &Client, seen: &Seen, options: &Options) -> Result<Exit, Trouble> {
    if seen.services.iter().any(|service| service.unserved().is_some()) {
        return Ok(Exit::Error);
    }
    match (seen.services.as_slice(), &options.service) {
        ([only], Some(_)) if only.phase == "rolled_back" => match only.rollout {
            Some(rollout) => Ok(watch::exit_of(&client.rollout(rollout).await?)),
            None => Ok(Exit::Done),
        },
        _ => Ok(Exit::Done),
    }
}

/// Whether the one service that was named has a rollout under way.
fn under_way(seen: &Seen, options: &Options) -> bool {
    let at_rest = |phase: &str| matches!(phase, "idle" | "promoted" | "rolled_back");
    options.service.is_some() && seen.services.iter().any(|service| !at_rest(&service.phase))
}

fn json(console: &mut Console, seen: &Seen, options: &Options) {
    match seen.services.as_slice() {
        [only] if options.service.is_some() => console.json(only),
        all => console.json(&all),
    }
}

async fn again(client: &Client, console: &mut Console, options: &Options) -> Result<Exit, Trouble> {
    let mut patience = watch::Patience::default();
    let mut before: Vec<String> = Vec::new();
    let mut answered = false;
    let mut going = false;
    while !console.is_closed() {
        let seen = match see(client, options).await {
            Ok(seen) => seen,
            Err(trouble) if answered => {
                patience.wait(console, trouble).await?;
                continue;
            }
            Err(trouble) => return Err(trouble),
        };
        answered = true;
        patience.over(console);
        if console.is_live() && !options.json {
            console.draw(&page(&seen, console.signs(), Timestamp::now()));
        } else {
            let news: Vec<String> = seen.services.iter().map(summary).collect();
            if options.json {
                if news != before {
                    json(console, &seen, options);
                }
            } else {
                let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
                for line in news.iter().filter(|line| !before.contains(line)) {
                    console.data(Line::new().and(Look::Faint, &now).plain("  ").plain(line));
                }
            }
            before = news;
        }
        let was_under_way = std::mem::replace(&mut going, under_way(&seen, options));
        if was_under_way && !going {
            if console.is_live() && !options.json {
                console.clear();
                for line in page(&seen, console.signs(), Timestamp::now()) {
                    console.data(line);
                }
            }
            return standing(client, &seen, options).await;
        }
        tokio::time::sleep(REFRESH_EVERY).await;
    }
    Ok(Exit::Done)
}

/// What a line on a pipe says, and what must change for another line.
fn summary(service: &ServiceStatus) -> String {
    let mut text = format!("{}  {}", service.service, service.phase.replace('_', " "));
    if let Some(step) = service.step {
        text.push_str(&format!(" step {step} of {}", service.steps.len()));
    }
    let (stable, canary) =
        (figures::percent(service.weights.stable), figures::percent(service.weights.canary));
    text.push_str(&format!("  stable {stable} canary {canary}"));
    if let Some(reason) = service.unserved() {
        text.push_str(&format!("  {reason}"));
    }
    for note in &service.notes {
        text.push_str(&format!("  {note}"));
    }
    text
}

fn page(seen: &Seen, signs: Signs, now: Timestamp) -> Vec<Line> {
    let mut lines = Vec::new();
    for note in &seen.daemon.notes {
        lines.push(Line::new().and(Look::Unsure, "! ").plain(note));
    }
    if seen.daemon.docker == Some(false) {
        let text = "the Docker engine does not answer: what runs goes on, nothing can be deployed";
        lines.push(Line::new().and(Look::Bad, signs.bad).plain(" ").plain(text));
    }
    if seen.daemon.stopping {
        lines.push(Line::new().and(Look::Unsure, "! ").plain("the daemon is stopping"));
    }
    for one in &seen.daemon.notify {
        if let Some(trouble) = &one.trouble {
            let since = one.since.as_deref().unwrap_or_default();
            let text = format!(
                "[notify.{}] takes no messages since {since}: {trouble} ({} wait)",
                one.name, one.waiting
            );
            lines.push(Line::new().and(Look::Unsure, "! ").plain(&text));
        }
    }
    lines.extend(certificates(&seen.daemon.certificates));
    if seen.services.is_empty() {
        lines.push(Line::from(
            "no service is configured: add a [service.NAME] to the configuration, then `switchback reload`",
        ));
    }
    for service in &seen.services {
        if !lines.is_empty() {
            lines.push(Line::new());
        }
        lines.extend(service_lines(service, signs, now));
    }
    lines
}

/// `certificates  app.example.com 61 d · *.example.org 12 d`; of many, those that expire first.
fn certificates(all: &[CertificateStatus]) -> Option<Line> {
    let mut sorted: Vec<&CertificateStatus> = all.iter().collect();
    sorted.sort_by_key(|one| one.days_left.unwrap_or(i64::MIN));
    let shown = sorted.iter().take(SHOWN_CERTIFICATES).map(|one| {
        let name = one.names.first().map_or("-", String::as_str);
        match one.days_left {
            Some(days) => format!("{name} {days} d"),
            None => format!("{name} {}", one.state),
        }
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if all.len() > SHOWN_CERTIFICATES {
        text.push_str(&format!(" and {} that last longer", all.len() - SHOWN_CERTIFICATES));
    }
    (!all.is_empty()).then(|| Line::new().and(Look::Faint, "certificates  ").plain(&text))
}

/// One service: a header, the two sides in numbers, the tree of instances, the verdict, the notes.
pub(super) fn service_lines(service: &ServiceStatus, signs: Signs, now: Timestamp) -> Vec<Line> {
    let mut lines = vec![header(service, signs, now)];
    if !service.routes.is_empty() {
        lines.push(Line::new().and(Look::Faint, "  from     ").plain(&service.routes.join(", ")));
    }
    if service.step.is_some() {
        lines.push(steps(service, signs));
    }
    if service.stable.is_none() && service.canary.is_none() {
        let name = &service.service;
        lines.push(Line::from(if service.answers_alone {
            "  answered by its routes: nothing runs".to_owned()
        } else {
            format!("  never deployed: `switchback deploy {name}` begins its first rollout")
        }));
        return lines;
    }
    lines.extend(live::traffic(service, signs, 2));
    let sides: Vec<(&str, &SideStatus)> =
        [("stable", &service.stable), ("canary", &service.canary)]
            .into_iter()
            .filter_map(|(name, side)| Some((name, side.as_ref()?)))
            .collect();
    let branches = sides.len() + usize::from(service.warm.is_some());
    for (n, (name, side)) in sides.iter().enumerate() {
        tree(&mut lines, name, side, n + 1 == branches, signs);
    }
    if let Some(warm) = &service.warm {
        let left = figures::duration(warm.seconds_left);
        let line = Line::new().plain("  ").and(Look::Faint, signs.last).plain("warm   ");
        lines.push(line.plain(&format!("revision {}  {}  for {left}", warm.revision, warm.image)));
    }
    if let Some(verdict) = service.verdict.as_ref().filter(|_| service.canary.is_some()) {
        lines.extend(live::checks(verdict, signs, 2));
    }
    for one in &service.webhooks {
        let look = if one.state == "yes" { Look::Good } else { Look::Unsure };
        let said = one.said.as_ref().map_or_else(String::new, |said| format!(": {said}"));
        let text = format!("{} ({}) ", one.name, one.kind);
        let line = Line::new().and(Look::Faint, "  webhook  ").plain(&text).and(look, &one.state);
        lines.push(line.plain(&format!("{said}, asked {} times", one.calls)));
    }
    if let Some(mirror) = &service.mirror {
        let text = format!(
            "{} of {} copies compared: {} failed on the canary, {} on stable",
            mirror.compared, mirror.sent, mirror.failed[0], mirror.failed[1]
        );
        let line = Line::new().and(Look::Faint, "  mirror   ").plain(&text);
        lines.push(match mirror.left_out {
            0 => line,
            left_out => line.plain(&format!("; {left_out} more were left out")),
        });
    }
    if let Some(shield) = service.shield.filter(|shield| shield.shielded + shield.refused > 0) {
        let sent = format!("{} failures of the canary went to stable", shield.shielded);
        let line = Line::new().and(Look::Faint, "  shield   ").plain(&sent);
        lines.push(match shield.refused {
            0 => line,
            refused => line.and(Look::Unsure, &format!(", {refused} were beyond the budget")),
        });
    }
    if let Some(reason) = service.unserved() {
        lines.push(Line::new().plain("  ").and(Look::Bad, signs.bad).plain(" ").plain(&reason));
    }
    lines.extend(
        service
            .notes
            .iter()
            .map(|note| Line::new().plain("  ").and(Look::Unsure, "! ").plain(note)),
    );
    lines
}

/// `web  baking, step 2 of 4, at most 2m10s left   for 41s   rollout 12`.
fn header(service: &ServiceStatus, signs: Signs, now: Timestamp) -> Line {
    let (sign, look) = match service.phase.as_str() {
        _ if service.unserved().is_some() => (signs.bad, Look::Bad),
        "idle" | "promoted" if service.stable.is_some() => (signs.good, Look::Good),
        "idle" => (signs.unsure, Look::Faint),
        // A service that went back is served well: its rollout failed, it did not.
        "paused" | "rolling_back" | "rolled_back" => (signs.unsure, Look::Unsure),
        _ => (signs.now, Look::Strong),
    };
    let line = Line::new().and(look, sign).plain(" ").and(Look::Strong, &service.service);
    let line = line.plain("  ").and(look, &live::standing(service));
    let line = match &service.group {
        Some(group) => line.and(Look::Faint, &format!("   group {group}")),
        None => line,
    };
    let since = figures::seconds_until(&service.since, now).filter(|seconds| *seconds >= 0.0);
    let line = match since {
        Some(seconds) => {
            line.and(Look::Faint, &format!("   for {}", figures::duration(seconds.floor())))
        }
        None => line,
    };
    match service.rollout {
        Some(rollout) => line.and(Look::Faint, &format!("   rollout {rollout}")),
        None => line,
    }
}

/// `steps    5% → [25%] → 50% → 100%`.
fn steps(service: &ServiceStatus, signs: Signs) -> Line {
    let mut line = Line::new().and(Look::Faint, "  steps    ");
    for (n, step) in service.steps.iter().enumerate() {
        if n > 0 {
            line = line.and(Look::Faint, &format!(" {} ", signs.arrow));
        }
        let text = figures::percent(*step);
        line = if Some(n + 1) == service.step {
            line.and(Look::Strong, &format!("[{text}]"))
        } else {
            line.plain(&text)
        };
    }
    line
}

/// `, 4 in flight, 12% cpu, 85 MB, restarted 2 times`.
fn figures_of(instance: &InstanceStatus) -> String {
    let mut text = format!(", {} in flight", instance.in_flight);
    if let Some(cpu) = instance.cpu {
        text.push_str(&format!(", {} cpu", figures::percent(cpu * 100.0)));
    }
    if let Some(memory) = instance.memory {
        text.push_str(&format!(", {}", figures::bytes(memory)));
    }
    if instance.restarts > 0 {
        let times = figures::plural(u64::from(instance.restarts), "time");
        text.push_str(&format!(", restarted {times}"));
    }
    text
}

fn tree(lines: &mut Vec<Line>, name: &str, side: &SideStatus, is_last: bool, signs: Signs) {
    let branch = if is_last { signs.last } else { signs.branch };
    let trunk = if is_last { "   " } else { signs.trunk };
    let line = Line::new().plain("  ").and(Look::Faint, branch).plain(&format!("{name} "));
    lines.push(line.plain(&format!("revision {}  {}", side.revision, side.image)));
    let count = side.instances.len();
    for (n, instance) in side.instances.iter().enumerate() {
        let twig = if n + 1 == count { signs.last } else { signs.branch };
        let line = Line::new().plain("  ").and(Look::Faint, trunk).and(Look::Faint, twig);
        let (sign, look, health) = if instance.healthy {
            (signs.good, Look::Good, "healthy")
        } else {
            (signs.bad, Look::Bad, "not healthy")
        };
        let line =
            line.and(look, sign).plain(&format!(" {}  {}  ", instance.short(), instance.address));
        let line = line.and(look, health).plain(&figures_of(instance));
        lines.push(match &instance.diagnosis {
            Some(diagnosis) => line.plain(&format!(": {diagnosis}")),
            None => line,
        });
    }
    if count == 0 {
        let line = Line::new().plain("  ").and(Look::Faint, trunk).and(Look::Faint, signs.last);
        lines.push(line.plain("no instances"));
    }
}
