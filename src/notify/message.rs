//! From an event and the figures to what people are told. Pure.

use serde_json::{Value, json};

use super::links::Link;
use crate::analysis::verdict::{Finding, Verdict};
use crate::config::notify::Occasion;
use crate::controller::status::{EventRecord, RolloutRecord, ServiceStatus};
use crate::model::id::{RevisionId, RolloutId};
use crate::rollout::phase::PauseReason;

/// Lines of figures in a message: what decided stands first.
const LINES: usize = 6;

/// What is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// What tells it from others: the same occasion of the same rollout has the same key.
    pub key: String,
    /// What it is about; none for a test.
    pub occasion: Option<Occasion>,
    /// The service.
    pub service: String,
    /// When, RFC 3339.
    pub at: String,
    /// One line.
    pub title: String,
    /// More lines: reason, figures, commit.
    pub lines: Vec<String>,
    /// What can be done by a link, about which rollout, revision and step.
    pub links: Vec<Link>,
    /// The rollout and the revision that links are about.
    pub about: (RolloutId, RevisionId),
    /// The step, counted from 1.
    pub step: Option<usize>,
    /// The same for programs.
    pub facts: Value,
}

impl Message {
    /// One that says it is a test.
    pub fn test() -> Self {
        Self {
            key: "test".to_owned(),
            occasion: None,
            service: String::new(),
            at: format!("{:.3}", jiff::Timestamp::now()),
            title: "Switchback: a test".to_owned(),
            lines: vec!["Whoever reads this is told of rollouts.".to_owned()],
            links: Vec::new(),
            about: (RolloutId(0), RevisionId(0)),
            step: None,
            facts: json!({ "event": "test" }),
        }
    }

    /// The event's word.
    pub fn word(&self) -> &'static str {
        self.occasion.map_or("test", Occasion::as_str)
    }

    /// Title and lines.
    pub fn text(&self) -> String {
        let mut text = self.title.clone();
        for line in &self.lines {
            text.push('\n');
            text.push_str(line);
        }
        text
    }
}

/// What an event means to people; most mean nothing.
pub fn messages(
    event: &EventRecord,
    service: &ServiceStatus,
    record: &RolloutRecord,
) -> Vec<Message> {
    let name = &service.service;
    let to = record.to;
    let direct = record.kind == "direct" && record.from.is_some();
    let make = |occasion: Occasion, title: String, lines: Vec<String>, links: Vec<Link>| {
        let step =
            service.step.filter(|_| matches!(occasion, Occasion::Step | Occasion::NeedsPerson));
        let key = format!("{}/{}/{}", record.rollout, occasion.as_str(), step.unwrap_or(0));
        let facts = facts(occasion, event, record);
        Message {
            key,
            occasion: Some(occasion),
            service: name.clone(),
            at: event.at.clone(),
            title,
            lines,
            links,
            about: (RolloutId(record.rollout), RevisionId(to)),
            step,
            facts,
        }
    };
    let origin = || record.origin.as_ref().map(|origin| format!("commit {origin}"));
    let by = || record.by.as_ref().map(|by| format!("by {by}"));
    let weight = event.weight.map_or_else(String::new, |weight| format!("{weight:.4}"));
    let weight = weight.trim_end_matches('0').trim_end_matches('.');
    match event.phase.as_deref() {
        Some("launching") => {
            let title = match (record.from, direct) {
                (Some(from), true) => format!("{name}: back from revision {from} to {to}"),
                (Some(from), false) => {
                    format!("{name}: revision {from} → {to} begins ({})", record.image)
                }
                (None, _) => format!("{name}: revision {to} begins ({})", record.image),
            };
            let links = if direct || record.from.is_none() { vec![] } else { vec![Link::Rollback] };
            vec![make(Occasion::Started, title, by().into_iter().chain(origin()).collect(), links)]
        }
        Some("baking") => {
            let title = format!("{name}: revision {to} takes {weight} % of the traffic");
            vec![make(Occasion::Step, title, Vec::new(), vec![Link::Rollback])]
        }
        Some("paused") if !event.message.ends_with(&PauseReason::Operator.to_string()) => {
            let title = format!("{name}: revision {to} waits at {weight} % and needs a person");
            let reason = event.message.split_once(": ").map_or("", |(_, reason)| reason);
            let lines = std::iter::once(reason.to_owned()).chain(figures(record.verdict.as_ref()));
            let links = vec![Link::Promote, Link::Rollback];
            vec![make(Occasion::NeedsPerson, title, lines.collect(), links)]
        }
        Some("promoted") => {
            let title = match direct {
                true => format!("{name}: revision {to} is back and has all the traffic"),
                false => format!("{name}: revision {to} was promoted ({})", record.image),
            };
            let lines = by().into_iter().chain(origin()).chain(figures(record.verdict.as_ref()));
            let links = if record.from.is_some() { vec![Link::Rollback] } else { vec![] };
            let mut all = vec![make(Occasion::Promoted, title, lines.collect(), links)];
            if let Some(confirm) = service.confirm.as_ref().filter(|c| c.revision == to) {
                let title = format!(
                    "{name}: revision {to} must be confirmed until {}, or revision {} comes back",
                    confirm.until, confirm.former
                );
                let links = vec![Link::Confirm, Link::Rollback];
                all.push(make(Occasion::NeedsPerson, title, Vec::new(), links));
            }
            all
        }
        Some("rolling_back" | "rolled_back") => {
            let cause = record.cause.clone().unwrap_or_else(|| event.message.clone());
            let title = format!("{name}: revision {to} was rolled back");
            let kept = record.from.map(|from| format!("all traffic is on revision {from}"));
            let lines = std::iter::once(cause)
                .chain(kept)
                .chain(by())
                .chain(origin())
                .chain(figures(record.verdict.as_ref()))
                .chain([format!("switchback explain {}", record.rollout)]);
            vec![make(Occasion::RolledBack, title, lines.collect(), vec![])]
        }
        _ => Vec::new(),
    }
}

/// The checks in sentences, the worst first.
fn figures(verdict: Option<&Verdict>) -> Vec<String> {
    let Some(verdict) = verdict else { return Vec::new() };
    let mut checks: Vec<_> = verdict.checks.iter().collect();
    checks.sort_by_key(|check| std::cmp::Reverse(check.result));
    let sign = |result| match result {
        Finding::Pass => "✔",
        Finding::Inconclusive => "◌",
        Finding::Fail => "✖",
    };
    let line = |check: &&crate::analysis::verdict::Check| {
        format!("{} {}: {}", sign(check.result), check.name, check.sentence)
    };
    let routes = verdict.worst_routes.iter().take(2).map(|route| {
        format!("worst route {}: {} errors, {} on stable", route.route, route.canary, route.stable)
    });
    checks.iter().take(LINES).map(line).chain(routes).collect()
}

fn facts(occasion: Occasion, event: &EventRecord, record: &RolloutRecord) -> Value {
    json!({
        "event": occasion.as_str(),
        "service": record.service,
        "rollout": record.rollout,
        "from": record.from,
        "to": record.to,
        "image": record.image,
        "digest": record.digest,
        "commit": record.origin.as_ref().and_then(|origin| origin.commit.clone()),
        "by": record.by,
        "phase": event.phase,
        "weight": event.weight,
        "outcome": record.outcome,
        "cause": record.cause,
        "verdict": record.verdict,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(more: &Value) -> ServiceStatus {
        let mut service = json!({
            "service": "web", "phase": "baking", "steps": [5.0, 100.0], "step": 1,
            "weights": { "stable": 95.0, "canary": 5.0 }, "stable": null, "canary": null,
            "rollout": 12, "since": "2026-11-21T10:00:00Z",
        });
        service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(service).unwrap()
    }

    fn record(more: &Value) -> RolloutRecord {
        let mut record = json!({
            "rollout": 12, "service": "web", "from": 3, "to": 4, "image": "web:v2",
            "kind": "canary", "phase": "baking", "outcome": null, "cause": null, "ended": null,
            "started": "2026-11-21T10:00:00Z", "by": "ann@box",
            "verdict": {
                "result": "fail", "sentence": "errors", "needs_requests": null,
                "checks": [
                    { "name": "p95", "result": "pass", "canary": 0.1, "stable": 0.1,
                      "limit": 0.2, "requests": 9, "sentence": "p95 is fine" },
                    { "name": "errors", "result": "fail", "canary": 0.05, "stable": 0.0,
                      "limit": 0.01, "requests": 312, "sentence": "errors 5 % against 0 %" },
                ],
                "worst_routes": [{ "route": "/checkout", "canary": 9, "stable": 1 }],
            },
        });
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(record).unwrap()
    }

    fn event(phase: &str, weight: f64, message: &str) -> EventRecord {
        EventRecord {
            id: 1,
            at: "2026-11-21T10:00:05.000Z".to_owned(),
            service: Some("web".to_owned()),
            rollout: Some(12),
            kind: "phase".to_owned(),
            phase: Some(phase.to_owned()),
            weight: Some(weight),
            message: message.to_owned(),
        }
    }

    #[test]
    fn a_rollback_says_why_with_the_figures_that_decided_first() {
        let record =
            record(&json!({ "cause": "errors 5 % against 0 %", "outcome": "rolled_back" }));
        let event = event("rolling_back", 0.0, "rolling back: errors");
        let told = messages(&event, &service(&json!({})), &record);
        let [message] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(message.word(), "rolled_back");
        assert_eq!(message.title, "web: revision 4 was rolled back");
        assert_eq!(
            message.lines,
            [
                "errors 5 % against 0 %",
                "all traffic is on revision 3",
                "by ann@box",
                "✖ errors: errors 5 % against 0 %",
                "✔ p95: p95 is fine",
                "worst route /checkout: 9 errors, 1 on stable",
                "switchback explain 12",
            ]
        );
        assert!(message.links.is_empty());
        // The same end under its other phase is the same message.
        let over = EventRecord { phase: Some("rolled_back".to_owned()), ..event };
        assert_eq!(messages(&over, &service(&json!({})), &record)[0].key, message.key);
    }

    #[test]
    fn a_gate_needs_a_person_and_a_pause_by_one_does_not() {
        let at_gate = event("paused", 50.0, "paused at 50%: a gate: `switchback promote` goes on");
        let told = messages(&at_gate, &service(&json!({ "step": 2 })), &record(&json!({})));
        assert_eq!(told[0].title, "web: revision 4 waits at 50 % and needs a person");
        assert_eq!(told[0].links, [Link::Promote, Link::Rollback]);
        assert_eq!((told[0].step, told[0].key.as_str()), (Some(2), "12/needs_person/2"));
        let by_hand = event("paused", 50.0, "paused at 50%: paused by a person");
        assert!(messages(&by_hand, &service(&json!({})), &record(&json!({}))).is_empty());
    }

    #[test]
    fn a_promotion_that_must_be_confirmed_needs_a_person_too() {
        let confirm = json!({ "revision": 4, "former": 3, "until": "2026-11-21T11:00:00Z" });
        let service = service(&json!({ "confirm": confirm }));
        let told = messages(&event("promoted", 100.0, "promoted"), &service, &record(&json!({})));
        let words: Vec<&str> = told.iter().map(Message::word).collect();
        assert_eq!(words, ["promoted", "needs_person"]);
        assert_eq!(told[1].links, [Link::Confirm, Link::Rollback]);
        let facts = &told[0].facts;
        assert_eq!((&facts["to"], &facts["by"]), (&json!(4), &json!("ann@box")));
    }

    #[test]
    fn other_phases_are_told_to_nobody() {
        for phase in ["probing", "smoke", "mirroring", "promoting"] {
            let told = messages(&event(phase, 0.0, ""), &service(&json!({})), &record(&json!({})));
            assert!(told.is_empty(), "{phase}");
        }
    }
}
