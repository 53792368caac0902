//! Follows a rollout to its end: a live block on a terminal, a line per event on a pipe.
//!
//! Watches only: a watcher that goes away changes nothing, and says so. Survives a restart of the
//! daemon. Ends with the exit code of the contract, which the rollout's record decides.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::client::Client;
use super::console::{Console, Line, Look};
use super::exit::Exit;
use super::stream::{Events, Told};
use super::trouble::Trouble;
use super::{events, figures, live};
use crate::controller::status::{EventRecord, RolloutRecord, ServiceStatus};

/// Five pictures a second, at most: faster than numbers can be read, as argo-rollouts' `get -w`.
const REDRAW_EVERY: Duration = Duration::from_millis(200);
/// How often the record is read, should the event of the end have been missed.
const RECORD_EVERY: Duration = Duration::from_secs(2);
/// How long a daemon may be away: a restart takes a second or two, a reboot is another day.
const RECONNECT_FOR: Duration = Duration::from_secs(30);
/// How long a record may lag behind the event of the end: a write to the disk, on a bad day.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);
/// After so long without an event a pipe is told how things stand: some CI systems end a job that says
/// nothing for ten minutes, and people wonder sooner.
const QUIET_FOR: Duration = Duration::from_secs(60);
/// The same where nothing is new: within what CI systems bear.
const SILENT_FOR: Duration = Duration::from_secs(5 * 60);
/// The pause between two attempts.
const RECONNECT_EVERY: Duration = Duration::from_millis(500);

/// The rollout that is followed.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Its service.
    pub service: String,
    /// Its number.
    pub rollout: u64,
    /// Whether it goes together with others, whose way back is said when all have ended.
    pub joined: bool,
}

/// Waits for a daemon that went away.
#[derive(Debug, Default)]
pub(super) struct Patience(Option<Instant>);

impl Patience {
    /// Waits a little; returns the trouble when patience has ended.
    pub(super) async fn wait(
        &mut self,
        console: &mut Console,
        trouble: Trouble,
    ) -> Result<(), Trouble> {
        if trouble.exit != Exit::Unreachable && trouble.status != Some(503) {
            return Err(trouble);
        }
        let since = *self.0.get_or_insert_with(|| {
            let seconds = RECONNECT_FOR.as_secs();
            let text = format!("the daemon does not answer; trying for {seconds} s …");
            console.talk(Line::new().and(Look::Unsure, &text));
            Instant::now()
        });
        if since.elapsed() >= RECONNECT_FOR {
            return Err(trouble);
        }
        Self::pause().await;
        Ok(())
    }

    /// The pause between two attempts.
    pub(super) async fn pause() {
        tokio::time::sleep(RECONNECT_EVERY).await;
    }

    /// The daemon answers.
    pub(super) fn over(&mut self, console: &mut Console) {
        if self.0.take().is_some() {
            console.talk("the daemon answers again");
        }
    }
}

/// Follows a rollout to its end and tells how it ended.
pub async fn to_the_end(
    client: &Client,
    console: &mut Console,
    followed: &Followed,
    json: bool,
) -> Result<Exit, Trouble> {
    let mut watch = Watch {
        client,
        followed,
        json,
        live: console.is_live() && !json,
        last: 0,
        began: None,
        highest: 0.0,
        said: Instant::now(),
        silence: QUIET_FOR,
        stood: String::new(),
    };
    let ended = tokio::select! {
        ended = watch.until_over(console) => Some(ended),
        _ = tokio::signal::ctrl_c() => None,
    };
    console.clear();
    let Some(ended) = ended else {
        let Followed { service, rollout, .. } = followed;
        console.talk(format!(
            "rollout {rollout} goes on without being watched: `switchback status {service} -w` shows it, \
             `switchback abort {service}` takes it back"
        ));
        return Ok(Exit::Error);
    };
    let record = ended.map_err(|trouble| {
        let Followed { service, rollout, .. } = followed;
        let sentence = format!(
            "{} (rollout {rollout} may go on: `switchback status {service}`)",
            trouble.sentence
        );
        Trouble { sentence, ..trouble }
    })?;
    Ok(conclude(client, console, &watch, &record).await)
}

struct Watch<'a> {
    client: &'a Client,
    followed: &'a Followed,
    json: bool,
    live: bool,
    /// The last event seen.
    last: u64,
    /// When its first event was, RFC 3339.
    began: Option<String>,
    /// The highest weight that the canary had.
    highest: f64,
    /// When something was last said.
    said: Instant,
    /// How long nothing may be said.
    silence: Duration,
    /// How things stood when that was last said.
    stood: String,
}

impl Watch<'_> {
    /// Tells what happens until the record says that it is over.
    async fn until_over(&mut self, console: &mut Console) -> Result<RolloutRecord, Trouble> {
        let mut patience = Patience::default();
        let mut stream: Option<Events> = None;
        let mut ticks = tokio::time::interval(REDRAW_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut record_read = Instant::now();
        let mut over: Option<Instant> = None;
        loop {
            let Some(events) = &mut stream else {
                let query = [("rollout", self.followed.rollout.to_string())];
                match self.client.events(Some(self.last), &query, true).await {
                    Ok(events) => {
                        patience.over(console);
                        stream = Some(events);
                    }
                    Err(trouble) => patience.wait(console, trouble).await?,
                }
                continue;
            };
            tokio::select! {
                told = events.next() => match told {
                    Ok(Some(told)) => {
                        if self.tell(console, told) {
                            over.get_or_insert_with(Instant::now);
                        }
                    }
                    Ok(None) | Err(_) => {
                        stream = None;
                        Patience::pause().await;
                    }
                },
                _ = ticks.tick() => {
                    if over.is_some() || record_read.elapsed() >= RECORD_EVERY {
                        record_read = Instant::now();
                        match self.client.rollout(self.followed.rollout).await {
                            Ok(record) if record.outcome.is_some() || over.is_some_and(late) => {
                                self.rest(console, &record);
                                return Ok(record);
                            }
                            Err(trouble) if trouble.status == Some(404) => return Err(trouble),
                            // The stream finds out when the daemon is away.
                            _ => {}
                        }
                    }
                    if !self.live && !self.json && self.said.elapsed() >= self.silence {
                        self.standing(console).await;
                    }
                    if self.live
                        && over.is_none()
                        && let Ok(status) = self.client.service(Some(&self.followed.service)).await
                        && status.rollout == Some(self.followed.rollout)
                    {
                        let mut block =
                            live::block(&status, console.signs(), console.width());
                        block.push(Line::new().and(Look::Faint, " Ctrl-C leaves it running"));
                        console.draw(&block);
                    }
                }
            }
        }
    }

    /// Tells how things stand, where nothing has happened for a while.
    async fn standing(&mut self, console: &mut Console) {
        self.said = Instant::now();
        let Ok(status) = self.client.service(Some(&self.followed.service)).await else { return };
        let verdict = status.verdict.as_ref().map(|verdict| verdict.sentence.as_str());
        let missing = verdict.filter(|text| !text.is_empty()).unwrap_or("no verdict yet");
        let (service, standing) = (&status.service, live::standing(&status));
        let text = format!("{service}: still {standing}: {missing}");
        // What is left of the time is no news.
        let news = text.split(", at most ").next().unwrap_or(&text).to_owned() + missing;
        self.silence = if self.stood == news { SILENT_FOR } else { QUIET_FOR };
        self.stood = news;
        console.talk(text);
    }

    /// Tells what the record has and the stream did not bring.
    fn rest(&mut self, console: &mut Console, record: &RolloutRecord) {
        for event in &record.events {
            if event.id > self.last {
                self.tell(console, Told::Event(Box::new(event.clone())));
            }
        }
    }

    /// Tells one thing; whether it was the end.
    fn tell(&mut self, console: &mut Console, told: Told) -> bool {
        self.said = Instant::now();
        match told {
            Told::Event(event) => {
                self.last = event.id;
                self.highest = self.highest.max(event.weight.unwrap_or(0.0));
                let began = self.began.get_or_insert_with(|| event.at.clone());
                if self.live {
                    console.talk(live::happened(&event, began, console.signs()));
                } else {
                    events::tell(console, &event, self.json);
                }
                is_over(&event)
            }
            Told::Missed(count) => {
                events::missed(console, count);
                false
            }
            // Its events go on by themselves.
            Told::Restarted => false,
        }
    }
}

fn late(over: Instant) -> bool {
    over.elapsed() >= CLOSED_WITHIN
}

fn is_over(event: &EventRecord) -> bool {
    matches!(event.phase.as_deref(), Some("promoted" | "rolled_back"))
}

/// The last line on a pipe with `-o json`.
#[derive(Debug, Serialize)]
struct Conclusion<'a> {
    kind: &'static str,
    service: &'a str,
    rollout: u64,
    from: Option<u32>,
    to: u32,
    outcome: Option<&'a str>,
    cause: Option<&'a str>,
    seconds: Option<f64>,
    exit: u8,
}

/// How a rollout's outcome ends a verb.
#[must_use]
pub fn exit_of(record: &RolloutRecord) -> Exit {
    match record.outcome.as_deref() {
        Some("promoted") => Exit::Done,
        Some("rolled_back") => Exit::RolledBack,
        Some("aborted") => Exit::Aborted,
        Some("never_healthy" | "launch_failed" | "timed_out") => Exit::Unhealthy,
        _ => Exit::Error,
    }
}

async fn conclude(
    client: &Client,
    console: &mut Console,
    watch: &Watch<'_>,
    record: &RolloutRecord,
) -> Exit {
    let exit = exit_of(record);
    let ended = record.ended.as_deref();
    let seconds = ended.and_then(|ended| figures::seconds_between(&record.started, ended));
    if watch.json {
        console.json(&Conclusion {
            kind: "outcome",
            service: &record.service,
            rollout: record.rollout,
            from: record.from,
            to: record.to,
            outcome: record.outcome.as_deref(),
            cause: record.cause.as_deref(),
            seconds,
            exit: exit as u8,
        });
        return exit;
    }
    if exit == Exit::Done {
        let sign = console.signs().good;
        let line =
            Line::new().and(Look::Good, sign).plain(" ").plain(&sentence(record, watch.highest));
        console.data(line);
        let status = client.service(Some(&record.service)).await.ok();
        if let Some(confirm) = status.as_ref().and_then(|status| status.confirm.as_ref()) {
            let (service, former) = (&record.service, confirm.former);
            let until = &confirm.until;
            let line = Line::new().plain("  ").and(Look::Unsure, "!").plain(&format!(
                " `switchback confirm {service}` until {until}, or revision {former} comes back"
            ));
            console.talk(line);
        }
        let way_back = status.as_ref().filter(|_| !watch.followed.joined).and_then(way_back);
        if let Some(line) = way_back {
            console.talk(format!("  {line}"));
        }
        return exit;
    }
    let sign = console.signs().bad;
    console
        .talk(Line::new().and(Look::Bad, sign).plain(" ").plain(&sentence(record, watch.highest)));
    for line in advice(record) {
        console.talk(format!("  {line}"));
    }
    exit
}

/// How a rollout ended, with cause and numbers. `highest` is the most weight that the canary had.
#[must_use]
pub fn sentence(record: &RolloutRecord, highest: f64) -> String {
    let RolloutRecord { service, to, image, .. } = record;
    let ended = record.ended.as_deref();
    let after = ended
        .and_then(|ended| figures::seconds_between(&record.started, ended))
        .map_or_else(String::new, |seconds| format!(" after {}", figures::duration(seconds)));
    let at = if highest > 0.0 {
        format!(" at {}", figures::percent(highest))
    } else {
        " before it had any traffic".to_owned()
    };
    let because = record.cause.as_deref().map_or_else(String::new, |cause| format!(": {cause}"));
    match record.outcome.as_deref() {
        Some("promoted") => format!("{service}: revision {to} ({image}) is stable{after}"),
        Some("aborted") => format!("{service}: revision {to} was aborted by a person{at}{after}"),
        Some("never_healthy" | "launch_failed" | "timed_out") => {
            format!("{service}: revision {to} was taken back{at}{after}{because}")
        }
        Some("rolled_back") => {
            format!("{service}: revision {to} was rolled back{at}{after}{because}")
        }
        _ => format!("{service}: rollout {} is in phase {}", record.rollout, record.phase),
    }
}

/// What a person needs next, after a rollout that went back.
fn advice(record: &RolloutRecord) -> Vec<String> {
    let RolloutRecord { service, rollout, to, .. } = record;
    let mut lines = Vec::new();
    let errors =
        record.verdict.iter().flat_map(|verdict| &verdict.checks).find(|c| c.name == "errors");
    if let Some(check) = errors
        && let Some(rate) = check.canary
    {
        let failed = (rate * check.requests as f64).round() as u64;
        let (failed, requests) =
            (figures::count(failed), figures::plural(check.requests, "request"));
        if failed != "0" {
            lines.push(format!("{failed} of {requests} to revision {to} failed"));
        }
    }
    lines.push(match record.from {
        Some(from) => format!("all traffic is on revision {from}"),
        None => format!("{service} has no other revision: it answers 503 until a deploy succeeds"),
    });
    lines.push(format!(
        "why: switchback explain {rollout}   output: switchback logs {service} --revision {to}"
    ));
    lines
}

/// How to go back after a promotion, while that is quick.
fn way_back(status: &ServiceStatus) -> Option<String> {
    let warm = status.warm.as_ref()?;
    let (service, revision) = (&status.service, warm.revision);
    let left = figures::duration(warm.seconds_left);
    Some(format!(
        "revision {revision} stays warm for {left}: `switchback rollback {service}` returns to it at once"
    ))
}
