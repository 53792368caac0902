//! Reads what is run around a rollout: smoke tests and hooks.

use super::exchange::read_strategy;
use super::problem::Problem;
use super::raw::Value;
use super::reader::Section;
use super::scalar;
use crate::model::hook::{Hook, HookMoment, HookPlace, Hooks, Smoke, SmokeAct, SmokeRequest};
use crate::model::revision::Source;
use crate::model::weight::Weight;
use crate::rollout::plan::{OnInconclusive, Plan, Steps};

/// The hooks of a service that runs `source`.
pub(super) fn read_hooks(section: &Section<'_>, source: Option<&Source>) -> Hooks {
    let read = |moment: HookMoment| read_hook(section, moment, source);
    Hooks {
        before_deploy: read(HookMoment::BeforeDeploy),
        after_promote: read(HookMoment::AfterPromote),
        on_rollback: read(HookMoment::OnRollback),
    }
}

fn read_hook(section: &Section<'_>, moment: HookMoment, source: Option<&Source>) -> Option<Hook> {
    let name = moment.as_str();
    section.written(name)?;
    let inner = section.inner(name);
    let command = command(&inner)?;
    let place = match inner.choice("run") {
        "image" => HookPlace::Image,
        _ => HookPlace::Host,
    };
    if place == HookPlace::Image
        && source.is_some_and(|source| !matches!(source, Source::Image(_)))
        && let Some(place) = inner.place_of("run")
    {
        let title = "there is no image to run this hook in";
        inner.wrong("run", &place, title, "leave it out: the command then runs on the host");
    }
    Some(Hook { command, place, timeout: inner.time_limit("timeout") })
}

fn command(section: &Section<'_>) -> Option<Vec<String>> {
    let words: Vec<String> =
        section.texts("command").into_iter().map(|found| found.value).collect();
    if words.is_empty() {
        let place = section.place_of("command").unwrap_or_else(|| section.place.clone());
        let title = format!("`command` is missing in {}", section.path);
        section.wrong("command", &place, title, "expected for example [\"./migrate\", \"up\"]");
        return None;
    }
    Some(words)
}

/// A plan with its steps, and what persons and tests have to say about them.
pub(super) fn read_gates(section: &Section<'_>, steps: Steps) -> Plan {
    let gates = section.each("gates", "a step", |value| match value {
        Value::Text(text) => text.parse::<Weight>().map_err(|error| error.to_string()),
        _ => Err("expected for example [\"50%\"]".to_owned()),
    });
    let replicas = section.integer("replicas").map_or(1, |found| found.value);
    let strategy = read_strategy(section);
    let plan = Plan { strategy, steps, ..Plan::default() };
    let steps = plan.clone().carried_out(u32::try_from(replicas).unwrap_or(1)).steps;
    for gate in gates.iter().filter(|gate| !steps.weights().contains(&gate.value)) {
        let place = gate.place.clone().unwrap_or_else(|| section.place.clone());
        let title = format!("the gate {} is no step", gate.value);
        section.wrong("gates", &place, title, &format!("the steps are {steps}"));
    }
    Plan {
        gates: gates.into_iter().map(|found| found.value).collect(),
        gate_timeout: section.time_limit("gate_timeout"),
        on_gate_timeout: match section.choice("on_gate_timeout") {
            "hold" => OnInconclusive::Hold,
            "advance" => OnInconclusive::Advance,
            _ => OnInconclusive::Rollback,
        },
        confirm_within: section.duration("confirm_within").value,
        smoke: read_smoke(section),
        mirror: super::mirror::read_mirror(section),
        webhooks: super::notify::read_webhooks(section),
        ..plan
    }
}

/// The smoke tests of a service.
fn read_smoke(section: &Section<'_>) -> Vec<Smoke> {
    if let Some(node) = section.written("smoke")
        && !matches!(&node.value, Value::List(nodes)
            if nodes.iter().all(|node| matches!(node.value, Value::Table(_))))
    {
        let expected = "expected smoke = [{ path = \"/healthz\" }]";
        section.wrong("smoke", &node.place, "`smoke` is a list of tests", expected);
        return Vec::new();
    }
    section.tables("smoke").iter().filter_map(read_test).collect()
}

fn read_test(section: &Section<'_>) -> Option<Smoke> {
    let (timeout, retries) = (section.time_limit("timeout"), section.integer("retries"));
    let retries = retries.map_or(0, |found| found.value as u32);
    let act = match (section.written("path"), section.written("command")) {
        (Some(_), None) => SmokeAct::Request(read_request(section)?),
        (None, Some(_)) => {
            for name in ["method", "headers", "body", "status", "contains", "json"] {
                if let Some(place) = section.place_of(name) {
                    let title = format!("`{name}` has no effect on a command");
                    section.wrong(name, &place, title, "leave it out, or give a path instead");
                }
            }
            SmokeAct::Command(command(section)?)
        }
        (written, _) => {
            let title = match written {
                Some(_) => "a smoke test has a `path` or a `command`, not both",
                None => "a smoke test needs a `path` or a `command`",
            };
            let expected = "expected for example { path = \"/healthz\", status = 200 }";
            section.wrong("path", &section.place, title, expected);
            return None;
        }
    };
    Some(Smoke { act, timeout, retries })
}

fn read_request(section: &Section<'_>) -> Option<SmokeRequest> {
    let path = section.parsed("path", "a path", |text| {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        if text.starts_with('/') && plain && !text.contains('#') {
            return Ok(text.to_owned());
        }
        Err("expected a path such as \"/healthz\", from the slash on".to_owned())
    })?;
    let method = section.parsed("method", "a method", |text| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
        plain.then(|| text.to_owned()).ok_or_else(|| "expected for example \"POST\"".to_owned())
    })?;
    let status = section.each("status", "a status", |value| match value {
        Value::Text(text) => scalar::statuses(text),
        Value::Integer(status) => scalar::statuses(&status.to_string()),
        _ => scalar::statuses(""),
    });
    let headers = section.map("headers");
    for name in headers.keys() {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || !name.bytes().all(plain) {
            let place = section.place_of("headers").unwrap_or_else(|| section.place.clone());
            let title = format!("{name:?} cannot name a header");
            section.wrong(
                "headers",
                &place,
                title,
                "expected for example { Accept = \"text/html\" }",
            );
        }
    }
    // What is sent, and easily taken for what has to come back.
    if let (Some(place), None) = (section.place_of("body"), section.written("contains"))
        && matches!(method.value.as_str(), "GET" | "HEAD")
    {
        let title = format!("`body` is sent with a {}, and looks at no answer", method.value);
        let problem = Problem::warning(Some(place), title);
        section.report.add(problem.help("what the answer must hold is `contains`"));
    }
    let json = section.map("json");
    for pointer in json.keys().filter(|pointer| !pointer.starts_with('/')) {
        let place = section.place_of("json").unwrap_or_else(|| section.place.clone());
        let title = format!("{pointer:?} is not a JSON pointer");
        let expected = "expected a path from the slash on: { \"/status\" = \"ok\" }";
        section.wrong("json", &place, title, expected);
    }
    Some(SmokeRequest {
        method: method.value,
        path: path.value,
        headers,
        send: section.text("body").map(|found| found.value),
        status: status.into_iter().map(|found| found.value).collect(),
        contains: section.text("contains").map(|found| found.value),
        json,
    })
}
