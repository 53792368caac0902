//! The picture of a rollout under way, drawn again and again at the bottom of a terminal.
//!
//! Pure: a status becomes lines.

use super::console::{Line, Look, Signs, columns};
use super::events::{look, what};
use super::figures;
use crate::analysis::verdict::{Check, Finding, Verdict};
use crate::controller::status::{EventRecord, ServiceStatus, SideStatus};

/// The widest bar: wider says no more.
const BAR: usize = 40;
/// Columns beside the bar: the weight before it, and `baking, step 2 of 4, at most 14m59s left` after it.
const BESIDE_BAR: usize = 52;

/// A line for something that happened, which stays above the picture.
pub(super) fn happened(event: &EventRecord, began: &str, signs: Signs) -> Line {
    let (sign, colour) = match (event.phase.as_deref(), look(event)) {
        (None, _) => (signs.note, Look::Faint),
        (_, Look::Bad) => (signs.bad, Look::Bad),
        (_, Look::Unsure) => (signs.unsure, Look::Unsure),
        _ => (signs.good, Look::Good),
    };
    let line = Line::new().plain(" ").and(colour, sign).plain(" ").plain(&what(event));
    let line = line.pad_to(18).plain(&event.message);
    match figures::seconds_between(began, &event.at) {
        Some(seconds) if seconds > 0.0 => {
            line.and(Look::Faint, &format!("  +{}", figures::duration(seconds)))
        }
        _ => line,
    }
}

/// The picture.
pub(crate) fn block(status: &ServiceStatus, signs: Signs, width: usize) -> Vec<Line> {
    let mut lines = vec![progress(status, signs, width)];
    if status.canary.as_ref().is_some_and(|side| side.traffic.is_some()) {
        lines.extend(traffic(status, signs, 1));
    }
    if let Some(verdict) = &status.verdict {
        lines.extend(checks(verdict, signs, 1));
    }
    for side in [&status.stable, &status.canary].into_iter().flatten() {
        for instance in side.instances.iter().filter(|instance| !instance.healthy) {
            let why = instance.diagnosis.as_deref().unwrap_or("not healthy yet");
            let line = Line::new().plain(" ").and(Look::Unsure, signs.unsure);
            lines.push(line.plain(&format!(" {}: {why}", instance.short())));
        }
    }
    lines.extend(
        status
            .notes
            .iter()
            .map(|note| Line::new().plain(" ").and(Look::Unsure, "!").plain(&format!(" {note}"))),
    );
    lines
}

fn progress(status: &ServiceStatus, signs: Signs, width: usize) -> Line {
    let weight = status.weights.canary;
    let line = Line::new().plain(" ").and(Look::Strong, signs.now).plain(" ");
    let line = line.and(Look::Strong, &figures::percent(weight)).pad_to(9);
    let room = width.saturating_sub(BESIDE_BAR).min(BAR);
    let full = ((weight / 100.0 * room as f64).round() as usize).min(room);
    let line = line
        .and(Look::Good, &signs.full.repeat(full))
        .and(Look::Faint, &signs.empty.repeat(room - full));
    line.plain(&format!("  {}", standing(status)))
}

/// `baking, step 2 of 4, at most 2m10s left`.
pub(super) fn standing(status: &ServiceStatus) -> String {
    let mut text = status.phase.replace('_', " ");
    if let Some(step) = status.step {
        text.push_str(&format!(", step {step} of {}", status.steps.len()));
    }
    if let Some(seconds) = status.seconds_left {
        text.push_str(&format!(", at most {} left", figures::duration(seconds)));
    }
    text
}

/// Both sides side by side, in numbers.
pub(super) fn traffic(status: &ServiceStatus, signs: Signs, indent: usize) -> Vec<Line> {
    let head =
        ["", "revision", "set", "actual", "req/s", "errors", "p50", "p95", "p99", "requests"];
    let mut rows = vec![head.map(|text| (Look::Faint, text.to_owned())).to_vec()];
    let sides = [
        ("stable", &status.stable, status.weights.stable),
        ("canary", &status.canary, status.weights.canary),
    ];
    // A share of nothing is not 0 %.
    let requests = |side: &&SideStatus| side.traffic.is_some_and(|t| t.requests_per_second > 0.0);
    let is_quiet =
        !sides.iter().filter_map(|(_, side, _)| side.as_ref()).any(|side| requests(&side));
    for (name, side, weight) in sides {
        if let Some(side) = side {
            let share = side.traffic.filter(|_| !is_quiet);
            let share = share.map_or_else(|| signs.none.to_owned(), |t| figures::percent(t.share));
            rows.push(side_row(name, side, (weight, share), signs));
        }
    }
    let right = [false, true, true, true, true, true, true, true, true, true];
    columns(&rows, &right, indent)
}

fn side_row(
    name: &str,
    side: &SideStatus,
    (weight, share): (f64, String),
    signs: Signs,
) -> Vec<(Look, String)> {
    let none = || signs.none.to_owned();
    let latency = |seconds: Option<f64>| seconds.map_or_else(none, figures::duration);
    let traffic = side.traffic.as_ref();
    let number = |figure: &dyn Fn(&crate::controller::status::TrafficStatus) -> String| {
        traffic.map_or_else(none, figure)
    };
    // No request is no error rate: a zero would look like good news.
    let seen = traffic.filter(|traffic| traffic.requests > 0);
    let errors = seen.map_or_else(none, |t| figures::percent(t.error_rate * 100.0));
    let errors_look = if seen.is_some_and(|t| t.errors > 0) { Look::Unsure } else { Look::Plain };
    vec![
        (Look::Strong, name.to_owned()),
        (Look::Plain, side.revision.to_string()),
        (Look::Plain, figures::percent(weight)),
        (Look::Plain, share),
        (Look::Plain, number(&|t| figures::rate(t.requests_per_second))),
        (errors_look, errors),
        (Look::Plain, latency(traffic.and_then(|t| t.p50))),
        (Look::Plain, latency(traffic.and_then(|t| t.p95))),
        (Look::Plain, latency(traffic.and_then(|t| t.p99))),
        (Look::Plain, number(&|t| figures::count(t.requests))),
    ]
}

/// A verdict's checks, a line each, and what is still missing. What holds it is among the notes.
pub(super) fn checks(verdict: &Verdict, signs: Signs, indent: usize) -> Vec<Line> {
    let mut lines: Vec<Line> =
        verdict.checks.iter().map(|check| check_line(check, signs, indent)).collect();
    let told = verdict.checks.iter().any(|check| check.sentence == verdict.sentence);
    if !told && !verdict.sentence.is_empty() {
        let (sign, look) = finding(verdict.result, signs);
        let line = Line::new().plain(&" ".repeat(indent)).and(look, sign);
        lines.push(line.plain(&format!(" {}", verdict.sentence)));
    }
    lines.extend(worst(verdict).map(|text| {
        Line::new().plain(&" ".repeat(indent)).and(Look::Faint, "  most errors  ").plain(&text)
    }));
    lines
}

/// `/checkout 9 (stable 1), /cart 2 (stable 0)`.
fn worst(verdict: &Verdict) -> Option<String> {
    let routes: Vec<String> = verdict
        .worst_routes
        .iter()
        .map(|worst| format!("{} {} (stable {})", worst.route, worst.canary, worst.stable))
        .collect();
    (!routes.is_empty()).then(|| routes.join(", "))
}

fn check_line(check: &Check, signs: Signs, indent: usize) -> Line {
    let (sign, look) = finding(check.result, signs);
    let line = Line::new().plain(&" ".repeat(indent)).and(look, sign).plain(" ");
    let name = line.and(Look::Strong, &check.name);
    // The longest name that the judge gives, `rejected`, and two spaces.
    let column = indent + 2 + 10;
    name.pad_to(column).plain(&check.sentence)
}

/// The sign and look of a finding.
pub(super) fn finding(finding: Finding, signs: Signs) -> (&'static str, Look) {
    match finding {
        Finding::Pass => (signs.good, Look::Good),
        Finding::Inconclusive => (signs.unsure, Look::Unsure),
        Finding::Fail => (signs.bad, Look::Bad),
    }
}
