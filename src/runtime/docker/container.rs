//! The two translations: from a revision to what the engine is told, and from what the engine tells
//! to the state of an instance. No I/O.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerState, EndpointSettings,
    HealthStatusEnum, HostConfig, NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
};

use super::hardening::harden;
use crate::model::id::{InstanceId, RevisionId, RolloutId, ServiceName};
use crate::model::instance::{Exit, Instance, Ownership};
use crate::model::revision::RevisionSpec;
use crate::runtime::State;

/// The label that names the daemon whose container it is.
pub const DAEMON: &str = "io.switchback.daemon";

const SERVICE: &str = "io.switchback.service";
const REVISION: &str = "io.switchback.revision";
const ROLLOUT: &str = "io.switchback.rollout";
const REPLICA: &str = "io.switchback.replica";
const PORT: &str = "io.switchback.port";

/// The network that Docker joins a container to when nobody says otherwise.
pub const BRIDGE: &str = "bridge";

/// Docker counts CPU in billionths of a core.
const NANOS_PER_MILLI: u64 = 1_000_000;

/// What is told of the output of a health check.
const LINE: usize = 200;

/// Above 128, an exit code in a container stands for 128 plus a signal, as in a shell.
const SIGNALLED: i64 = 128;

/// The signals that end programs on their own account or ours (signal(7)): ABRT, BUS, FPE, KILL,
/// SEGV, PIPE, TERM. Another code above 128 is more likely the app's own.
const SIGNALS: [i64; 7] = [6, 7, 8, 9, 11, 13, 15];

/// The name of a container.
pub fn name(ownership: &Ownership) -> String {
    let Ownership { service, revision, rollout, replica } = ownership;
    format!("switchback-{service}-r{revision}-{rollout}-{replica}")
}

/// What the engine is told to create.
pub fn body(
    spec: &RevisionSpec,
    image: &str,
    ownership: &Ownership,
    daemon: &str,
) -> ContainerCreateBody {
    let container = &spec.container;
    let mut labels: HashMap<String, String> = container.labels.clone().into_iter().collect();
    labels.extend([
        (SERVICE.to_owned(), ownership.service.to_string()),
        (REVISION.to_owned(), ownership.revision.to_string()),
        (ROLLOUT.to_owned(), ownership.rollout.to_string()),
        (REPLICA.to_owned(), ownership.replica.to_string()),
        (DAEMON.to_owned(), daemon.to_owned()),
        (PORT.to_owned(), spec.port.to_string()),
    ]);
    let adopted = adopted(spec);
    let host = adopted.host_config.clone().unwrap_or_default();
    let limit = |amount: u64| (amount > 0).then(|| i64::try_from(amount).unwrap_or(i64::MAX));
    ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: (!container.args.is_empty()).then(|| container.args.clone()),
        env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        user: container.user.clone(),
        labels: Some(labels),
        host_config: Some(HostConfig {
            binds: Some(container.volumes.clone()),
            network_mode: Some(network(spec).to_owned()),
            memory: limit(container.memory),
            nano_cpus: limit(container.cpu_millis.saturating_mul(NANOS_PER_MILLI)),
            pids_limit: limit(container.pids),
            // Whether to start again is the controller's to decide.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            ..harden(spec, host)
        }),
        networking_config: endpoint(spec, network(spec)).map(|endpoint| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network(spec).to_owned(), endpoint)])),
        }),
        ..adopted
    }
}

/// What a container was told that the revision was adopted from; nothing for all others.
fn adopted(spec: &RevisionSpec) -> ContainerCreateBody {
    let adopted = spec.container.adopted.clone();
    adopted.and_then(|adopted| serde_json::from_value(adopted).ok()).unwrap_or_default()
}

/// What is said when a network is joined: the aliases of a revision that was adopted.
pub fn endpoint(spec: &RevisionSpec, network: &str) -> Option<EndpointSettings> {
    adopted(spec).networking_config?.endpoints_config?.remove(network)
}

/// The network on which an instance is reached.
pub fn network(spec: &RevisionSpec) -> &str {
    spec.container.networks.first().map_or(BRIDGE, String::as_str)
}

/// Whose container it is, as its labels tell; none when they are not ours or not whole.
pub fn ownership(labels: &HashMap<String, String>, daemon: &str) -> Option<Ownership> {
    let label = |name: &str| labels.get(name).map(String::as_str);
    (label(DAEMON)? == daemon).then_some(())?;
    Some(Ownership {
        service: ServiceName::new(label(SERVICE)?).ok()?,
        revision: RevisionId(label(REVISION)?.parse().ok()?),
        rollout: RolloutId(label(ROLLOUT)?.parse().ok()?),
        replica: label(REPLICA)?.parse().ok()?,
    })
}

/// The labels of an inspected container.
pub fn labels(found: &ContainerInspectResponse) -> HashMap<String, String> {
    found.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default()
}

/// How an inspected container is. One that was created and never started, or that has no address
/// any more, serves nobody and counts as ended.
pub fn state(found: &ContainerInspectResponse) -> State {
    let Some(state) = &found.state else { return State::Gone };
    match (state.running, address(found)) {
        (Some(true), Some(address)) => {
            let id = InstanceId::new(found.id.as_deref().unwrap_or_default());
            State::Running { instance: Instance { id, address }, health: health(state) }
        }
        _ => State::Ended(exit(state)),
    }
}

/// How a container ended.
pub fn exit(state: &ContainerState) -> Exit {
    let out_of_memory = state.oom_killed.unwrap_or(false);
    if state.running == Some(true) || state.finished_at.as_deref().is_none_or(never) {
        return Exit { out_of_memory, ..Exit::default() };
    }
    Exit { out_of_memory, ..state.exit_code.map(exit_of).unwrap_or_default() }
}

/// What an exit code says.
pub fn exit_of(code: i64) -> Exit {
    let signal = code - SIGNALLED;
    Exit {
        code: i32::try_from(code).ok(),
        signal: SIGNALS.contains(&signal).then(|| i32::try_from(signal).ok()).flatten(),
        ..Exit::default()
    }
}

/// Go's zero time stands for never.
fn never(time: &str) -> bool {
    time.is_empty() || time.starts_with("0001-")
}

/// What the image's HEALTHCHECK says, when it has one; while it has not concluded, not healthy.
fn health(state: &ContainerState) -> Option<bool> {
    match state.health.as_ref()?.status? {
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE => None,
        HealthStatusEnum::HEALTHY => Some(true),
        HealthStatusEnum::STARTING | HealthStatusEnum::UNHEALTHY => Some(false),
    }
}

/// What the image's HEALTHCHECK last found, in a sentence; none when there is none, or it passes.
pub fn ailment(found: &ContainerInspectResponse) -> Option<String> {
    let health = found.state.as_ref()?.health.as_ref()?;
    let says = match health.status? {
        HealthStatusEnum::STARTING => "has not passed yet",
        HealthStatusEnum::UNHEALTHY => "fails",
        HealthStatusEnum::EMPTY | HealthStatusEnum::NONE | HealthStatusEnum::HEALTHY => {
            return None;
        }
    };
    let Some(last) = health.log.as_ref().and_then(|log| log.last()) else {
        return Some(format!("the image's HEALTHCHECK {says}: it has not run so far"));
    };
    let line =
        last.output.as_deref().and_then(|out| out.lines().map(str::trim).find(|l| !l.is_empty()));
    let line = line.map(|line| line.chars().take(LINE).collect::<String>());
    let code = last.exit_code.unwrap_or_default();
    let said = line.map_or_else(String::new, |line| format!(" ({line})"));
    Some(format!("the image's HEALTHCHECK {says}: it exited with code {code}{said}"))
}

fn address(found: &ContainerInspectResponse) -> Option<SocketAddr> {
    let port = labels(found).get(PORT)?.parse().ok()?;
    let mode = found.host_config.as_ref().and_then(|host| host.network_mode.as_deref());
    let network = match mode {
        None | Some("" | "default") => BRIDGE,
        // It shares the host's interfaces, and has no address of its own.
        Some("host") => return Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Some(name) => name,
    };
    let joined = found.network_settings.as_ref()?.networks.as_ref()?.get(network)?;
    let parse = |text: &Option<String>| text.as_deref()?.parse::<IpAddr>().ok();
    let ip = parse(&joined.ip_address).or_else(|| parse(&joined.global_ipv6_address))?;
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_of_signals() {
        assert_eq!(exit_of(0), Exit { code: Some(0), ..Exit::default() });
        assert_eq!(exit_of(137), Exit { code: Some(137), signal: Some(9), ..Exit::default() });
        assert_eq!(exit_of(139).to_string(), "was ended by signal 11");
        assert_eq!(exit_of(130).to_string(), "exited with code 130");
    }

    #[test]
    fn a_health_check_that_does_not_pass_says_why() {
        let with = |status: &str, log: &str| {
            let state =
                format!(r#"{{"State": {{"Health": {{"Status": "{status}", "Log": {log}}}}}}}"#);
            ailment(&serde_json::from_str(&state).unwrap())
        };
        let failed =
            r#"[{"ExitCode": 7, "Output": ""}, {"ExitCode": 1, "Output": "\n no database \n"}]"#;
        let says = |text: &str| Some(format!("the image's HEALTHCHECK {text}"));
        assert_eq!(with("unhealthy", failed), says("fails: it exited with code 1 (no database)"));
        assert_eq!(
            with("starting", r#"[{"ExitCode": 7, "Output": ""}]"#),
            says("has not passed yet: it exited with code 7")
        );
        assert_eq!(with("starting", "[]"), says("has not passed yet: it has not run so far"));
        assert_eq!(with("healthy", failed), None);
        assert_eq!(ailment(&ContainerInspectResponse::default()), None);
    }

    #[test]
    fn labels_round_trip_and_others_are_not_ours() {
        let ownership_of_web = Ownership {
            service: ServiceName::new("web").unwrap(),
            revision: RevisionId(3),
            rollout: RolloutId(12),
            replica: 1,
        };
        assert_eq!(name(&ownership_of_web), "switchback-web-r3-12-1");
        let mut labels: HashMap<String, String> =
            [(SERVICE, "web"), (REVISION, "3"), (ROLLOUT, "12"), (REPLICA, "1"), (DAEMON, "home")]
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect();
        assert_eq!(ownership(&labels, "home"), Some(ownership_of_web));
        assert_eq!(ownership(&labels, "another"), None);
        labels.insert(REPLICA.to_owned(), "first".to_owned());
        assert_eq!(ownership(&labels, "home"), None);
    }
}
