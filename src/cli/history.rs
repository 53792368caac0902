//! `switchback history` and `switchback explain`: what rollouts there were, and why one went as it did.

use super::client::Client;
use super::console::{Console, Line, Look, columns};
use super::events::{look, what};
use super::exit::Exit;
use super::trouble::{self, Trouble};
use super::{figures, live, watch};
use crate::analysis::verdict::{Check, Finding};
use crate::controller::status::RolloutRecord;

/// What people see of a digest: as much as Docker's own tools show.
const DIGEST_SHOWN: usize = "sha256:".len() + 12;

/// Whose history, and how it is shown.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The service; may be left out where there is one.
    pub service: Option<String>,
    /// As JSON.
    pub json: bool,
}

/// Shows the rollouts of a service, newest first.
pub async fn run(client: &Client, console: &mut Console, options: Options) -> Exit {
    let shown = show(client, console, &options).await;
    trouble::ended(console, shown)
}

async fn show(client: &Client, console: &mut Console, options: &Options) -> Result<Exit, Trouble> {
    let service = client.service(options.service.as_deref()).await?.service;
    let records = client.history(&service).await?;
    if options.json {
        console.json(&records);
        return Ok(Exit::Done);
    }
    if records.is_empty() {
        console.talk(format!(
            "{service} was never deployed: `switchback deploy {service}` begins its first rollout"
        ));
        return Ok(Exit::Done);
    }
    let head = ["ROLLOUT", "REVISION", "OUTCOME", "BEGAN", "TOOK", "RUNS", "WHY"];
    let mut rows = vec![head.map(|text| (Look::Faint, text.to_owned())).to_vec()];
    rows.extend(records.iter().map(|record| row(record, console.signs().arrow)));
    for line in columns(&rows, &[true, false, false, false, true], 0) {
        console.data(line);
    }
    Ok(Exit::Done)
}

fn row(record: &RolloutRecord, arrow: &str) -> Vec<(Look, String)> {
    let revisions = match record.from {
        Some(from) => format!("{from} {arrow} {}", record.to),
        None => record.to.to_string(),
    };
    let (outcome, look) = outcome(record);
    let took = record.ended.as_deref();
    let took = took.and_then(|ended| figures::seconds_between(&record.started, ended));
    vec![
        (Look::Strong, record.rollout.to_string()),
        (Look::Plain, revisions),
        (look, outcome),
        (Look::Plain, moment(&record.started)),
        (Look::Plain, took.map_or_else(String::new, figures::duration)),
        (Look::Plain, runs(record)),
        (Look::Plain, record.cause.clone().unwrap_or_default()),
    ]
}

/// What ran, and what that was under its name: `web:v2 sha256:0f3a…, 1b2c… of main`.
fn runs(record: &RolloutRecord) -> String {
    let mut text = record.image.clone();
    if let Some(digest) = &record.digest {
        text.push_str(&format!(" {}", digest.get(..DIGEST_SHOWN).unwrap_or(digest)));
    }
    if let Some(origin) = &record.origin {
        text.push_str(&format!(", built from {origin}"));
    }
    text
}

fn outcome(record: &RolloutRecord) -> (String, Look) {
    match record.outcome.as_deref() {
        None => (record.phase.replace('_', " "), Look::Unsure),
        Some("promoted") => ("promoted".to_owned(), Look::Good),
        Some(other) => (other.replace('_', " "), Look::Bad),
    }
}

/// `2026-11-21 10:00:05` of an RFC 3339 time.
fn moment(at: &str) -> String {
    at.get(..19).unwrap_or(at).replace('T', " ")
}

/// Shows one rollout: what happened, what was known, and why it ended as it did.
pub async fn explain(client: &Client, console: &mut Console, rollout: u64, json: bool) -> Exit {
    let record = client.rollout(rollout).await;
    let shown = record.map(|record| {
        if json {
            console.json(&record);
        } else {
            for line in explanation(&record, console) {
                console.data(line);
            }
        }
        Exit::Done
    });
    trouble::ended(console, shown)
}

fn explanation(record: &RolloutRecord, console: &Console) -> Vec<Line> {
    let signs = console.signs();
    let RolloutRecord { rollout, service, to, kind, .. } = record;
    let image = runs(record);
    let revisions = match record.from {
        Some(from) => format!("revision {from} {} {to}", signs.arrow),
        None => format!("first revision {to}"),
    };
    let line = Line::new().and(Look::Strong, &format!("rollout {rollout}"));
    let mut lines = vec![line.plain(&format!(" of {service}: {revisions} ({image}), {kind}"))];
    let highest = record.events.iter().filter_map(|event| event.weight).fold(0.0, f64::max);
    let (sign, colour) = match outcome(record).1 {
        Look::Good => (signs.good, Look::Good),
        Look::Bad => (signs.bad, Look::Bad),
        _ => (signs.now, Look::Unsure),
    };
    lines.push(Line::new().and(colour, sign).plain(" ").plain(&watch::sentence(record, highest)));

    lines.push(Line::new());
    lines.push(
        Line::new()
            .and(Look::Faint, &format!("what happened, from {} UTC", moment(&record.started))),
    );
    let rows: Vec<Vec<(Look, String)>> = record
        .events
        .iter()
        .map(|event| {
            let after = figures::seconds_between(&record.started, &event.at).unwrap_or(0.0);
            vec![
                (Look::Faint, figures::clock(&event.at).to_owned()),
                (Look::Faint, format!("+{}", figures::duration(after))),
                (look(event), what(event)),
                (Look::Plain, event.message.clone()),
            ]
        })
        .collect();
    if rows.is_empty() {
        lines.push(Line::from("  what happened step by step is not kept any more"));
    }
    lines.extend(columns(&rows, &[false, true], 2));

    if let Some(verdict) = &record.verdict {
        lines.push(Line::new());
        let (_, colour) = live::finding(verdict.result, signs);
        let word = match verdict.result {
            Finding::Pass => "good enough",
            Finding::Inconclusive => "nothing shown yet",
            Finding::Fail => "worse than allowed",
        };
        lines.push(
            Line::new().and(Look::Faint, "what the evidence said at last: ").and(colour, word),
        );
        lines.extend(live::checks(verdict, signs, 2));
        if let Some(hold) = &verdict.hold {
            lines.push(Line::new().plain("  ").and(Look::Unsure, "! ").plain(hold));
        }
        if !verdict.checks.is_empty() {
            lines.push(Line::new());
            let head = ["", "canary", "stable", "limit", "requests"];
            let mut rows = vec![head.map(|text| (Look::Faint, text.to_owned())).to_vec()];
            rows.extend(verdict.checks.iter().map(|check| numbers(check, signs.none)));
            lines.extend(columns(&rows, &[false, true, true, true, true], 2));
        }
    }
    lines
}

/// A check's numbers: latencies where the name says so, fractions elsewhere.
fn numbers(check: &Check, none: &str) -> Vec<(Look, String)> {
    let is_latency = check.name.starts_with('p') && check.name[1..].parse::<f64>().is_ok();
    let number = |value: Option<f64>| match value {
        None => none.to_owned(),
        Some(seconds) if is_latency => figures::duration(seconds),
        Some(fraction) => figures::percent(fraction * 100.0),
    };
    vec![
        (Look::Strong, check.name.clone()),
        (Look::Plain, number(check.canary)),
        (Look::Plain, number(check.stable)),
        (Look::Plain, number(check.limit)),
        (Look::Plain, figures::count(check.requests)),
    ]
}
