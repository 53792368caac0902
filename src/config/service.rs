//! Reads `[service.NAME]`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::container::read_container;
use super::daemon::secret;
use super::document::Document;
use super::exceptions::{read_assets, read_exceptions};
use super::exchange::{check_exchange, read_exchange};
use super::hooks::{read_gates, read_hooks};
use super::keys::{Key, SERVICE, TCP};
use super::policy::{self, Context, ReadFile};
use super::problem::{Place, Problem};
use super::raw::{Entry, Value};
use super::reader::{Report, Section};
use super::secrets::read_secrets;
use super::source::{check_fit, command_port, read_source};
use super::{Service, affinity, env_file, group, keeping, scalar, tcp};
use crate::analysis::criteria::{Criteria, Unit};
use crate::model::id::ServiceName;
use crate::model::preamble::Preamble;
use crate::model::revision::{ProbeKind, ProbeSpec, RevisionSpec, Source, UpstreamProtocol};
use crate::model::weight::Weight;
use crate::rollout::plan::{OnInconclusive, Plan, Steps};
use crate::routing::settings::{Affinity, ErrorRule, ServiceSettings, Shield};
use crate::routing::table::Route;

/// A service and where its routes were written, for the checks across services.
pub(super) struct Read {
    pub(super) service: Service,
    pub(super) route_places: Vec<Place>,
    /// The services that its routes lead to.
    pub(super) leads: policy::Leads,
    /// Where its header stands.
    pub(super) place: Place,
}

/// Reads all services.
pub(super) fn read(document: &Document, context: Context<'_>, report: &Report) -> Vec<Read> {
    let of = |kind: &'static Kind| read_kind(document, context, report, kind);
    let mut all = of(&HTTP);
    for tcp in of(&PLAIN) {
        if all.iter().any(|read| read.service.name == tcp.service.name) {
            let name = &tcp.service.name;
            let title = format!("[tcp.{name}] and [service.{name}] have one name");
            let place = tcp.place.clone();
            report.add(Problem::error(place, title).label("verbs could not tell them apart"));
        }
        all.push(tcp);
    }
    all
}

/// `[service.NAME]` or `[tcp.NAME]`.
struct Kind {
    table: &'static str,
    keys: &'static [Key],
}

const HTTP: Kind = Kind { table: "service", keys: SERVICE };
const PLAIN: Kind = Kind { table: "tcp", keys: TCP };

fn read_kind(
    document: &Document,
    context: Context<'_>,
    report: &Report,
    kind: &'static Kind,
) -> Vec<Read> {
    let services = document.table.entry(kind.table).map(|entry| &entry.node);
    let entries: &[Entry] = match services.map(|node| (&node.value, &node.place)) {
        Some((Value::Table(table), _)) => &table.entries,
        Some((other, place)) => {
            let name = kind.table;
            let title = format!("`{name}` is a table of services, not {}", other.kind());
            report.add(Problem::error(place.clone(), title).label(format!("write [{name}.web]")));
            &[]
        }
        None => &[],
    };
    entries.iter().filter_map(|entry| read_service(entry, context, report, kind)).collect()
}

fn read_service(
    entry: &Entry,
    context: Context<'_>,
    report: &Report,
    kind: &'static Kind,
) -> Option<Read> {
    let (base, file) = (context.base, context.file);
    let name = ServiceName::new(&entry.key).map_err(|_| {
        report.add(
            Problem::error(entry.place.clone(), format!("{:?} cannot name a service", entry.key))
                .label("expected 1 to 63 of a-z, 0-9 and '-', a letter or digit at both ends"),
        );
    });
    let Value::Table(table) = &entry.node.value else {
        let problem =
            Problem::error(entry.place.clone(), format!("`{}` is not a service", entry.key));
        let expected = format!("services have names: write this below [{}.NAME]", kind.table);
        report.add(problem.label(expected));
        return None;
    };
    let path = format!("{}.{}", kind.table, entry.key);
    let section = Section::new(path, entry.place.clone(), kind.keys, Some(table), report);
    let name = name.ok()?;
    let is_http = kind.table == HTTP.table;
    let (routes, route_places) = if is_http { read_routes(&section) } else { Default::default() };
    let listen = if is_http { Vec::new() } else { tcp::read_listen(&section) };
    let (policy, leads) =
        if is_http { policy::read(&section, context) } else { Default::default() };
    let group = if is_http { group::read_group(&section) } else { None };
    let mut settings = if is_http {
        read_settings(&section, group.as_ref().unwrap_or(&name))
    } else {
        tcp::read_settings(&section)
    };
    settings.to_https = policy.base.to_https;
    let mut probe = read_probe(&section.inner("probe"));
    if !is_http && probe.kind == ProbeKind::Auto {
        probe.kind = ProbeKind::Tcp;
    }
    let mut plan = read_plan(&section, probe.deadline);
    read_exchange(&section, &mut plan);
    if settings.affinity != Affinity::None {
        // Users are assigned, not requests: the share of requests may differ from the split.
        plan.criteria.unit = Unit::Session;
    }
    if !is_http {
        tcp::check_criteria(&section, &plan.criteria);
    }
    let template = read_template(&section, probe, policy.answers_alone(), (base, file));
    plan.hooks = read_hooks(&section, template.as_ref().map(|template| &template.source));
    let template = template?;
    let keeping = keeping::read_keeping(&section, &template.container.volumes);
    let build = keeping::read_build(&section);
    check_comparison(&section, &template, &plan);
    check_exchange(&section, &template, &plan, is_http);
    let place = section.place.clone();
    let service =
        Service { name, routes, listen, settings, policy, template, plan, keeping, build, group };
    Some(Read { service, route_places, leads, place })
}

/// What the canary is to be compared with must be there.
fn check_comparison(section: &Section<'_>, template: &RevisionSpec, plan: &Plan) {
    let wrong = |name: &str, title: &str, expected: &str| {
        let place = section.place_of(name).unwrap_or_else(|| section.place.clone());
        section.wrong(name, &place, title, expected);
    };
    if plan.fresh_baseline && matches!(template.source, Source::Endpoints(_)) {
        let title = "`fresh_baseline` needs instances that we launch";
        wrong("fresh_baseline", title, "leave it out where somebody else runs the `endpoints`");
    }
    if plan.criteria.compares_instances && template.instances() < 2 {
        let title = "`compare_instances` needs two instances of stable at least";
        wrong("compare_instances", title, "write `replicas = 2` or more, or leave it out");
    }
}

fn read_routes(section: &Section<'_>) -> (Vec<Route>, Vec<Place>) {
    let hosts = section.each("host", "a host", |value| match value {
        Value::Text(text) => scalar::host(text),
        _ => scalar::host(""),
    });
    if section.lacks("host") {
        section.report.add(
            Problem::error(
                section.place.clone(),
                format!("`host` is missing in [{}]", section.path),
            )
            .label(
                "expected the names that lead here: host = \"app.example.com\", or \"*\" for all",
            ),
        );
    }
    let paths = section.each("path", "a path", |value| match value {
        Value::Text(text) => scalar::path_prefix(text),
        _ => scalar::path_prefix(""),
    });
    let mut routes = Vec::new();
    let mut places = Vec::new();
    for host in &hosts {
        for path in &paths {
            let place = path.place.as_ref().filter(|_| paths.len() > 1 && hosts.len() == 1);
            places.push(place.or(host.place.as_ref()).unwrap_or(&section.place).clone());
            routes.push(Route { host: host.value.clone(), path: path.value.clone() });
        }
    }
    (routes, places)
}

fn read_template(
    section: &Section<'_>,
    probe: ProbeSpec,
    answers_alone: bool,
    (base, file): (&Path, ReadFile<'_>),
) -> Option<RevisionSpec> {
    let source = read_source(section, answers_alone);
    let port = section.integer("port");
    let replicas = section.integer("replicas").map_or(1, |found| found.value as u32);
    let protocol = match section.choice("protocol") {
        "h2c" => UpstreamProtocol::H2c,
        _ => UpstreamProtocol::Http1,
    };
    let preamble = match section.choice("proxy_protocol") {
        "v1" => Preamble::V1,
        "v2" => Preamble::V2,
        _ => Preamble::None,
    };
    if let (UpstreamProtocol::H2c, Some(place), false) =
        (protocol, section.place_of("proxy_protocol"), preamble.is_none())
    {
        let title = "`proxy_protocol` cannot be had with protocol = \"h2c\"";
        let expected = "one connection carries the requests of all clients: leave one of them out";
        section.wrong("proxy_protocol", &place, title, expected);
    }
    let env = read_env(section, base, file);
    let secrets = read_secrets(section, base);
    let mut container = read_container(section);
    let stop_grace = section.duration("stop_grace").value;
    let source = source?;
    check_fit(section, &source);
    if matches!(source, Source::Command(_)) && section.lacks("no_new_privileges") {
        // A command may begin with sudo.
        container.hardening.no_new_privileges = false;
    }
    let port = match &source {
        Source::Image(_) => {
            if section.lacks("port") {
                section.report.add(
                    Problem::error(
                        section.place.clone(),
                        format!("`port` is missing in [{}]", section.path),
                    )
                    .label("expected the port on which the app in the image listens: port = 3000"),
                );
            }
            port.map_or(0, |port| port.value as u16)
        }
        Source::Command(words) => command_port(section, words, replicas, port),
        Source::Endpoints(_) => 0,
    };
    Some(RevisionSpec {
        source,
        replicas,
        port,
        env,
        secrets,
        protocol,
        preamble,
        probe,
        stop_grace,
        container,
    })
}

fn read_env(section: &Section<'_>, base: &Path, file: ReadFile<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for found in section.texts("env_file") {
        let path = found.path(base);
        let place = found.place.clone().unwrap_or_else(|| section.place.clone());
        match file(&path) {
            Err(why) => {
                section.wrong(
                    "env_file",
                    &place,
                    "`env_file` cannot be read",
                    &format!("{}: {why}", path.display()),
                );
            }
            Ok(text) => match env_file::parse(&text) {
                Ok(pairs) => env.extend(pairs),
                Err((line, expected)) => {
                    let start = text.split_inclusive('\n').take(line).map(str::len).sum();
                    let source = section.report.source(path.display().to_string(), text);
                    let place = Place { source, span: start..start };
                    let title = "a line of an `env_file` cannot be read";
                    section.report.add(Problem::error(place, title).label(expected).concealed());
                }
            },
        }
    }
    let written = section.map("env");
    for name in written.keys() {
        if let Err(expected) = env_file::check_name(name) {
            let place = section.place_of("env").unwrap_or_else(|| section.place.clone());
            section.wrong("env", &place, format!("{name:?} cannot name a variable"), &expected);
        }
    }
    env.extend(written);
    env
}

fn read_probe(section: &Section<'_>) -> ProbeSpec {
    let path = section.parsed("path", "a path", |text| {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
        match text.starts_with('/') && plain && !text.contains('#') {
            true => Ok(text.to_owned()),
            false => Err("expected a path such as \"/healthz\", from the slash on".to_owned()),
        }
    });
    let host = section.text("host").map(|found| found.value);
    let kind = match section.choice("kind") {
        "tcp" => {
            for name in ["path", "host"] {
                if let Some(place) = section.place_of(name) {
                    let title = format!("`{name}` has no effect on a tcp probe");
                    section.wrong(name, &place, title, "leave it out, or write kind = \"http\"");
                }
            }
            ProbeKind::Tcp
        }
        "auto" if path.is_none() && host.is_none() => ProbeKind::Auto,
        _ => {
            ProbeKind::Http { path: path.map_or_else(|| "/".to_owned(), |found| found.value), host }
        }
    };
    let interval = section.time_limit("interval");
    let rise = section.integer("rise").map_or(1, |found| found.value as u32);
    let deadline = section.duration("deadline");
    let needed = interval.saturating_mul(rise.saturating_sub(1));
    if let Some(place) = deadline.place.as_ref().filter(|_| deadline.value <= needed) {
        let title = "no instance could become healthy within this `deadline`";
        let least = scalar::show_duration(needed);
        section.wrong(
            "deadline",
            place,
            title,
            &format!("{rise} probes in a row take {least} at least"),
        );
    }
    ProbeSpec {
        kind,
        interval,
        timeout: section.time_limit("timeout"),
        rise,
        fall: section.integer("fall").map_or(1, |found| found.value as u32),
        deadline: deadline.value,
    }
}

fn read_settings(section: &Section<'_>, name: &ServiceName) -> ServiceSettings {
    let (affinity, affinity_domain) = affinity::read(section, name);
    let errors = section.each("errors", "a status", |value| match value {
        Value::Text(text) => scalar::statuses(text),
        Value::Integer(status) => scalar::statuses(&status.to_string()),
        _ => scalar::statuses(""),
    });
    if let (true, Some(Value::List(nodes))) =
        (errors.is_empty(), section.written("errors").map(|node| &node.value))
        && nodes.is_empty()
        && let Some(place) = section.place_of("errors")
    {
        section.wrong(
            "errors",
            &place,
            "`errors` is empty: nothing would count as an error",
            "expected for example \"5xx\"",
        );
    }
    let mut settings = ServiceSettings {
        connect_timeout: section.time_limit("connect_timeout"),
        response_timeout: section.time_limit("response_timeout"),
        idle_timeout: section.time_limit("idle_timeout"),
        max_body: match section.size("max_body").value {
            0 => u64::MAX,
            bytes => bytes,
        },
        buffer_requests: section.size("buffer_requests").value,
        retries: section.integer("retries").map_or(0, |found| found.value as u32),
        retry_budget: share(section, "retry_budget"),
        affinity,
        affinity_domain,
        errors: ErrorRule::of(errors.into_iter().flat_map(|found| found.value.0..=found.value.1)),
        exceptions: Vec::new(),
        tester_secret: secret(section, "tester_secret"),
        client_certificate: section.choice("client_certificate") == "required",
        shield: match section.choice("shield") {
            "off" => Shield::Off,
            "safe" => Shield::Safe,
            _ => Shield::Idempotent,
        },
        shield_budget: share(section, "shield_budget"),
        shield_body: usize::try_from(section.size("shield_body").value).unwrap_or(usize::MAX),
        assets: read_assets(section),
        forwarded: section.switch("forwarded"),
        to_https: false,
    };
    settings.except(read_exceptions(section));
    settings
}

/// A part of the requests.
fn share(section: &Section<'_>, name: &str) -> Weight {
    section
        .parsed(name, "a part", |text| text.parse::<Weight>().map_err(|error| error.to_string()))
        .map_or(Weight::ZERO, |found| found.value)
}

fn read_plan(section: &Section<'_>, probe_deadline: Duration) -> Plan {
    let bake = section.duration("bake");
    let bake_max = section.duration("bake_max");
    if bake.value > bake_max.value
        && let Some(place) = bake.place.as_ref().or(bake_max.place.as_ref())
    {
        let (least, most) =
            (scalar::show_duration(bake.value), scalar::show_duration(bake_max.value));
        let problem = Problem::error(
            place.clone(),
            format!("`bake` ({least}) is longer than `bake_max` ({most})"),
        )
        .label("a step lasts at least `bake` and at most `bake_max`");
        section.report.add(match (&bake.place, &bake_max.place) {
            (Some(_), Some(other)) => problem.related(other.clone(), "the most"),
            _ => problem.help(format!("`bake_max` is {most}, where it is not written")),
        });
    }
    let steps = section.parsed("steps", "a list of steps", |text| {
        text.parse::<Steps>().map_err(|error| error.to_string())
    });
    let hold_back = section.parsed("hold_back", "a part of the traffic", |text| {
        let weight = text.parse::<Weight>().map_err(|error| error.to_string())?;
        // Beyond half, the step before it would have said as much.
        match weight.fraction() <= 0.5 {
            true => Ok(weight),
            false => Err("stable keeps a small part, such as \"5%\"; 50% at most".to_owned()),
        }
    });
    let criteria = section.parsed("abort", "a list of limits", |text| {
        text.parse::<Criteria>().map_err(|error| error.to_string())
    });
    Plan {
        bake: bake.value,
        bake_max: bake_max.value,
        on_inconclusive: match section.choice("on_inconclusive") {
            "advance" => OnInconclusive::Advance,
            "rollback" => OnInconclusive::Rollback,
            _ => OnInconclusive::Hold,
        },
        launch_deadline: section.time_limit("launch_deadline"),
        probe_deadline,
        drain_deadline: section.duration("drain").value,
        keep_warm: section.duration("keep_warm").value,
        hold_back: hold_back.map(|found| found.value).unwrap_or_default(),
        fresh_baseline: section.switch("fresh_baseline"),
        record: section.switch("record"),
        criteria: Criteria {
            warm_up: section.duration("warm_up").value,
            compares_instances: section.switch("compare_instances"),
            ..criteria.map(|found| found.value).unwrap_or_default()
        },
        ..read_gates(section, steps.map(|found| found.value).unwrap_or_default())
    }
}
