//! From evidence to what is said: the checks of a verdict and their sentences.
//!
//! A sentence gives the effect, the number of requests, and what follows from them: the chance of
//! such evidence while nothing is wrong, or about how much more traffic a pass needs.

use super::breaker::Opened;
use super::criteria::{Bound, Metric, Unit};
use super::interval;
use super::judge::{Evidence, Judge, Voice};
use super::memory::Failure;
use super::share::DISBELIEF;
use super::verdict::{Check, Finding, Verdict};
use super::wording::{chance, count, percent, requests, rounded, shape, span, time, wait};
use crate::model::weight::Side;

/// The name of the check that a dead canary fails.
pub const BREAKER: &str = "breaker";
/// The name of the check on 4xx answers.
pub const REJECTED: &str = "rejected";
/// A fraction of stable's answers beyond twice its former p95 that is out of the ordinary: what lay
/// beyond p95 itself, and a little, as when all became twice as slow.
const SLOW: f64 = 0.06;
/// Where clients are assigned, one who is refused again and again speaks for many, and nothing is taken back
/// for 4xx answers. But from twice stable's rate and this much more on a person should look.
const REFUSED: f64 = 0.1;
/// History says what is ordinary from so many requests on.
const HISTORY: u64 = 100;

/// Why the rollout must end now, if it must.
pub(super) fn failure(judge: &Judge, opened: Option<Opened>) -> Option<Failure> {
    if let Some(Opened { canary, stable, lasted }) = opened {
        let beside = if judge.is_alone() {
            String::new()
        } else {
            format!(", while stable answered {}", count(stable.others))
        };
        let sentence = format!(
            "{} of {} failed in {}{beside}: the canary is dead",
            count(canary.events),
            requests(canary.requests()),
            time(lasted.as_secs_f64()),
        );
        return Some(Failure { check: BREAKER.to_owned(), sentence });
    }
    let evidence = judge.evidence();
    if evidence.total < 1.0 / judge.criteria.alpha {
        return None;
    }
    match evidence.voice {
        Voice::Latency if !judge.is_slow_enough() || !judge.is_beyond_instances() => return None,
        Voice::Errors if !judge.is_faulty_enough() => return None,
        _ => {}
    }
    let by_chance = chance(evidence.total);
    let (check, what) = match evidence.voice {
        Voice::Errors => (Metric::Errors.to_string(), errors_against(judge)),
        Voice::Rejected => (REJECTED.to_owned(), rejected_against(judge)),
        Voice::Latency => {
            let metric = judge.latency_metric().unwrap_or(Metric::Latency(0.5));
            let (against, moved) = (metric_against(judge, metric), shape(judge.latency.shape()));
            (metric.to_string(), format!("{against} ({moved})"))
        }
        Voice::Limit(index) => {
            let limit = judge.limits.get(index)?.limit();
            let against = metric_against(judge, limit.metric);
            (
                limit.metric.to_string(),
                format!("{against}, limit {}", bound(judge, limit.bound, limit.metric)),
            )
        }
    };
    Some(Failure { check, sentence: format!("{what}: {by_chance} of happening by chance") })
}

/// What is known now.
pub(super) fn verdict(judge: &Judge) -> Verdict {
    if judge.steps == 0 {
        return Verdict::unknown("no step has begun");
    }
    let evidence = judge.evidence();
    let mut checks = Vec::with_capacity(judge.limits.len() + 3);
    let mut needs = Some(0);
    for (index, limit) in judge.criteria.limits.iter().enumerate() {
        let metric = limit.metric;
        if judge.criteria.limits[..index].iter().all(|earlier| earlier.metric != metric) {
            let (check, need) = metric_check(judge, metric, evidence);
            if check.result == Finding::Inconclusive {
                needs = needs.zip(need).map(|(a, b): (u64, u64)| a.max(b));
            }
            checks.push(check);
        }
    }
    if judge.criteria.watches_errors() {
        checks.push(rejected_check(judge, evidence));
    }
    checks.push(breaker_check(judge));
    let hold = hold(judge);
    let worst = checks.iter().map(|check| check.result).max().unwrap_or(Finding::Inconclusive);
    let held = if hold.is_some() { Finding::Inconclusive } else { Finding::Pass };
    let result = worst.worst(held);
    let sentence = match (&judge.failed, &hold, result) {
        (Some(failure), ..) => failure.sentence.clone(),
        (None, Some(hold), _) => hold.clone(),
        (None, None, Finding::Pass) => passed(judge),
        (None, None, _) => slowest(&checks),
    };
    let needs_requests =
        if result == Finding::Inconclusive { needs.filter(|n| *n > 0) } else { None };
    let needs_seconds = needs_requests.and_then(|requests| judge.lasts(requests));
    let worst_routes = Vec::new();
    let beyond = |check: &Check| check.canary.zip(check.limit).is_some_and(|(is, most)| is > most);
    // Beside stable the streams speak within a slot or two; alone there are only the limits.
    let looks_bad = judge.is_alone() && checks.iter().any(beyond);
    let failing = result == Finding::Inconclusive && (judge.breaker.is_running() || looks_bad);
    Verdict { result, checks, sentence, needs_requests, needs_seconds, worst_routes, hold, failing }
}

/// The sentence of the check that a pass still waits for.
fn slowest(checks: &[Check]) -> String {
    let waiting = checks.iter().find(|check| check.result == Finding::Inconclusive);
    waiting.map_or_else(String::new, |check| check.sentence.clone())
}

fn passed(judge: &Judge) -> String {
    let metrics = judge.criteria.limits.iter().map(|limit| limit.metric);
    let mut parts: Vec<String> = Vec::new();
    for metric in metrics {
        let part = effect(judge, metric);
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    let seen = requests(judge.totals_of(Side::Canary).errors.requests());
    let shown = if judge.is_alone() { "within the limits" } else { "no worse than stable" };
    if parts.is_empty() {
        return format!("nothing is watched; {seen} so far");
    }
    format!("{} over {seen}: {shown}", parts.join(" and "))
}

fn metric_check(judge: &Judge, metric: Metric, evidence: Evidence) -> (Check, Option<u64>) {
    let name = metric.to_string();
    let seen = judge.totals_of(Side::Canary).errors.requests();
    let goal = 1.0 / judge.criteria.promotion_alpha;
    let (shown, need) = proof(judge, metric, goal);
    let missing = judge.criteria.min_requests.saturating_sub(seen);
    let need = need.map(|need| need.max(missing));
    let blamed = evidence.suspicious && speaks_for(judge, evidence.voice, metric);
    let failed = judge.failed.as_ref().filter(|failure| failure.check == name);
    let (result, sentence) = if let Some(failure) = failed {
        (Finding::Fail, failure.sentence.clone())
    } else if seen == 0 {
        (Finding::Inconclusive, "no canary requests yet".to_owned())
    } else if metric != Metric::Errors && judge.is_warming() {
        (Finding::Inconclusive, format!("{name} is left out while the canary warms up"))
    } else if metric != Metric::Errors && !judge.is_alone() && !judge.promotion.knows_latency() {
        (Finding::Inconclusive, format!("{name} is not yet known well enough on stable to compare"))
    } else {
        let against = metric_against(judge, metric);
        if blamed {
            let by_chance = chance(evidence.total);
            let waits = format!("{against}: {by_chance} of happening by chance, so the step waits");
            (Finding::Inconclusive, waits)
        } else if shown && missing == 0 {
            (Finding::Pass, format!("{against}: shown to be good enough"))
        } else if let Some(need) = need {
            let more = count(rounded(need.max(1) as f64));
            let plural = if need.max(1) == 1 { "request" } else { "requests" };
            let lasts = judge.lasts(need.max(1));
            let lasts = lasts.map_or_else(String::new, |s| format!(", {} at this rate,", wait(s)));
            let verb = if need.max(1) == 1 { "is" } else { "are" };
            let needs = format!("about {more} more canary {plural}{lasts} {verb} needed to pass");
            (Finding::Inconclusive, format!("{against}: {needs}"))
        } else {
            let slowest = judge.promotion.slowest().filter(|_| !judge.is_alone());
            // A step asks for p50, p90 and p99; what is told may be another.
            let which = match (metric, slowest) {
                (Metric::Latency(told), Some(slowest)) if (told - slowest).abs() > 1e-9 => {
                    format!("{} is ", Metric::Latency(slowest))
                }
                _ => String::new(),
            };
            let between = "too far off to pass, not enough for a rollback";
            (Finding::Inconclusive, format!("{against}: {which}{between}"))
        }
    };
    let (canary, stable) = values(judge, metric);
    let check = Check {
        name,
        result,
        canary,
        stable,
        limit: limit(judge, metric),
        interval: interval(judge, metric),
        requests: seen,
        sentence,
    };
    (check, need)
}

/// Whether the canary is shown to be good enough on a metric, and what that still needs.
fn proof(judge: &Judge, metric: Metric, goal: f64) -> (bool, Option<u64>) {
    if !judge.is_alone() {
        return match metric {
            Metric::Errors => {
                (judge.promotion.errors_evidence() >= goal, judge.promotion.errors_need(goal))
            }
            Metric::Latency(_) => {
                (judge.promotion.latency_evidence() >= goal, judge.promotion.latency_need(goal))
            }
        };
    }
    let streams = judge.limits.iter().filter(|stream| stream.limit().metric == metric);
    let mut result = (true, Some(0));
    for (stream, proof) in streams.filter_map(|stream| stream.proof().map(|proof| (stream, proof)))
    {
        if proof < goal {
            result.0 = false;
            result.1 = result.1.zip(stream.need(goal)).map(|(a, b)| a.max(b));
        }
    }
    result
}

fn speaks_for(judge: &Judge, voice: Voice, metric: Metric) -> bool {
    match voice {
        Voice::Errors => metric == Metric::Errors,
        Voice::Latency => judge.latency_metric() == Some(metric),
        Voice::Rejected => false,
        Voice::Limit(index) => {
            judge.limits.get(index).is_some_and(|stream| stream.limit().metric == metric)
        }
    }
}

fn rejected_check(judge: &Judge, evidence: Evidence) -> Check {
    let (canary, stable) = (judge.totals_of(Side::Canary), judge.totals_of(Side::Stable));
    let failed = judge.failed.as_ref().filter(|failure| failure.check == REJECTED);
    let against = rejected_against(judge);
    let (result, sentence) = match failed {
        Some(failure) => (Finding::Fail, failure.sentence.clone()),
        None if evidence.suspicious && evidence.voice == Voice::Rejected => {
            let by_chance = chance(evidence.total);
            let waits = format!("{against}: {by_chance} of happening by chance, so the step waits");
            (Finding::Inconclusive, waits)
        }
        None if is_refusing(judge) => {
            let waits = format!("{against}: a person should look, so the step waits");
            (Finding::Inconclusive, waits)
        }
        None => (Finding::Pass, against),
    };
    Check {
        name: REJECTED.to_owned(),
        result,
        canary: canary.rejected.rate(),
        stable: stable.rejected.rate(),
        limit: stable.rejected.rate().map(|rate| judge.margins.rejected.boundary().at(rate)),
        interval: canary.rejected.rate().map(|_| interval::rate(canary.rejected, interval::ALPHA)),
        requests: canary.rejected.requests(),
        sentence,
    }
}

fn is_refusing(judge: &Judge) -> bool {
    let (canary, stable) = (judge.totals_of(Side::Canary), judge.totals_of(Side::Stable));
    let enough = canary.rejected.requests() >= judge.criteria.min_requests;
    let rates = canary.rejected.rate().zip(stable.rejected.rate());
    judge.criteria.unit == Unit::Session
        && enough
        && rates.is_some_and(|(canary, stable)| canary > 2.0 * stable + REFUSED)
}

fn breaker_check(judge: &Judge) -> Check {
    let failed = judge.failed.as_ref().filter(|failure| failure.check == BREAKER);
    let (result, sentence) = match failed {
        Some(failure) => (Finding::Fail, failure.sentence.clone()),
        None => (Finding::Pass, "the canary answers".to_owned()),
    };
    let seen = judge.totals_of(Side::Canary).errors.requests();
    Check {
        name: BREAKER.to_owned(),
        result,
        canary: None,
        stable: None,
        limit: None,
        interval: None,
        requests: seen,
        sentence,
    }
}

/// What a person should look at before the step may pass.
fn hold(judge: &Judge) -> Option<String> {
    let configured = judge.share();
    if judge.is_alone() || configured <= 0.0 {
        return None;
    }
    if judge.criteria.unit == Unit::Request && judge.delivered.evidence(configured) >= DISBELIEF {
        return Some(format!(
            "the canary received {} of the requests where {} was configured, so nothing is concluded",
            percent(judge.delivered.delivered()),
            percent(configured),
        ));
    }
    if let Some(stream) = judge.limits.iter().find(|stream| stream.is_broken_by_both()) {
        return Some(format!(
            "stable itself breaks the limit `{}`, so the step waits",
            stream.limit()
        ));
    }
    let guards = &judge.guards;
    if guards.history.requests() < HISTORY {
        return None;
    }
    // Three standard deviations above what was seen before, and what a step would let pass on top.
    let seen = guards.history.events as f64;
    let before = (seen + 3.0 * seen.sqrt()) / guards.history.requests() as f64;
    if guards.errors.is_clearly_above(judge.margins.promote_errors.boundary().at(before)) {
        return Some(format!(
            "errors on stable itself went from {} to {}, something both sides share may be failing, \
             so the step waits",
            percent(guards.history.rate().unwrap_or(0.0)),
            percent(guards.errors.rate()),
        ));
    }
    guards.slow.is_clearly_above(SLOW).then(|| {
        format!(
            "{} of stable's own answers take more than twice as long as its p95 before the rollout, \
             something both sides share may be slow, so the step waits",
            percent(guards.slow.rate()),
        )
    })
}

fn errors_against(judge: &Judge) -> String {
    metric_against(judge, Metric::Errors)
}

fn rejected_against(judge: &Judge) -> String {
    let (canary, stable) = (judge.totals_of(Side::Canary), judge.totals_of(Side::Stable));
    let values = (canary.rejected.rate(), stable.rejected.rate());
    let effect = against("4xx answers", values, None, percent);
    format!("{effect} over {}", requests(canary.rejected.requests()))
}

fn metric_against(judge: &Judge, metric: Metric) -> String {
    let seen = judge.totals_of(Side::Canary).errors.requests();
    format!("{} over {}", effect(judge, metric), requests(seen))
}

/// `errors 4.7 % (2.9 to 7.4 %) against 0.03 % on stable`.
fn effect(judge: &Judge, metric: Metric) -> String {
    let (name, number): (String, fn(f64) -> String) = match metric {
        Metric::Errors => (metric.to_string(), percent),
        Metric::Latency(_) => (metric.to_string(), time),
    };
    against(&name, values(judge, metric), interval(judge, metric), number)
}

/// Between which values the canary's surely lies.
fn interval(judge: &Judge, metric: Metric) -> Option<(f64, f64)> {
    let canary = judge.totals_of(Side::Canary);
    match metric {
        Metric::Errors => {
            canary.errors.rate().map(|_| interval::rate(canary.errors, interval::ALPHA))
        }
        Metric::Latency(q) => interval::quantile(&canary.latency, q, interval::ALPHA)
            .map(|(low, high)| (low / 1e6, high / 1e6)),
    }
}

fn against(
    name: &str,
    values: (Option<f64>, Option<f64>),
    interval: Option<(f64, f64)>,
    number: fn(f64) -> String,
) -> String {
    let sure = interval.map_or_else(String::new, |sure| format!(" ({})", span(sure, number)));
    match values {
        (Some(canary), Some(stable)) => {
            format!("{name} {}{sure} against {} on stable", number(canary), number(stable))
        }
        (Some(canary), None) => format!("{name} {}{sure}", number(canary)),
        (None, _) => format!("{name} not yet known"),
    }
}

/// The canary's value and stable's: at this step, or, where the canary has all traffic, stable's when
/// it was last seen.
fn values(judge: &Judge, metric: Metric) -> (Option<f64>, Option<f64>) {
    let (canary, stable) = (judge.totals_of(Side::Canary), judge.totals_of(Side::Stable));
    match metric {
        Metric::Errors => {
            let last = judge.is_alone().then(|| judge.errors.stable_rate());
            (canary.errors.rate(), stable.errors.rate().or(last))
        }
        Metric::Latency(quantile) => {
            let seconds = |micros: f64| micros / 1e6;
            let last = || judge.baseline.quantile(quantile).filter(|_| judge.is_alone());
            (
                canary.latency.quantile(quantile).map(seconds),
                stable.latency.quantile(quantile).or_else(last).map(seconds),
            )
        }
    }
}

/// The strictest limit on a metric as a number.
fn limit(judge: &Judge, metric: Metric) -> Option<f64> {
    let stable = values(judge, metric).1;
    let limits = judge.criteria.limits.iter().filter(|limit| limit.metric == metric);
    let numbers = limits.filter_map(|limit| match limit.bound {
        Bound::Absolute(number) => Some(number),
        Bound::Ratio(ratio) => stable.map(|stable| stable * ratio),
    });
    numbers.min_by(f64::total_cmp)
}

fn bound(judge: &Judge, bound: Bound, metric: Metric) -> String {
    let number = match metric {
        Metric::Errors => percent,
        Metric::Latency(_) => time,
    };
    match bound {
        Bound::Absolute(limit) => number(limit),
        Bound::Ratio(ratio) => {
            let stable = values(judge, metric).1;
            stable.map_or_else(|| format!("{ratio}x"), |stable| number(stable * ratio))
        }
    }
}
