//! Runtime `docker`, on a real engine; and, where only misbehaviour will do, on a fake one.

use std::collections::HashMap;
use std::time::Duration;

use bollard::query_parameters::{ListContainersOptions, RemoveContainerOptions};
use switchback::model::id::{InstanceId, RevisionId, RolloutId, ServiceName};
use switchback::model::instance::{Exit, Instance, Ownership};
use switchback::model::revision::{
    ContainerSpec, ProbeKind, ProbeSpec, RevisionSpec, Source, UpstreamProtocol,
};
use switchback::prober;
use switchback::runtime::docker::DockerRuntime;
use switchback::runtime::{Runtime, RuntimeError, RuntimeEvent, State};
use tokio::sync::mpsc;

use crate::support::engine::{DockerHost, busybox, engine, import, on_a_runtime};
use crate::support::fake_engine::{Act, FakeEngine};

/// Longer than anything here takes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

const GRACE: Duration = Duration::from_secs(1);

/// One test's place on the engine; its containers go with it.
struct Yard {
    host: DockerHost,
    daemon: String,
    runtime: DockerRuntime,
}

impl Yard {
    fn new(test: &str) -> Option<Self> {
        let host = engine()?;
        let daemon = format!("{test}-{}", std::process::id());
        let runtime = DockerRuntime::new(&host.url, &daemon).unwrap();
        Some(Self { host, daemon, runtime })
    }

    fn spec(&self, args: &[&str]) -> RevisionSpec {
        let mut spec = image(busybox(&self.host));
        spec.container.args = args.iter().map(ToString::to_string).collect();
        spec
    }

    fn replica(&self, replica: u32) -> Ownership {
        Ownership {
            service: ServiceName::new(&self.daemon).unwrap(),
            revision: RevisionId(3),
            rollout: RolloutId(12),
            replica,
        }
    }

    async fn run(&self, args: &[&str]) -> Instance {
        self.runtime.launch(&self.spec(args), &self.replica(0)).await.unwrap()
    }

    async fn watch(&self) -> mpsc::Receiver<RuntimeEvent> {
        let (events, mut heard) = mpsc::channel(16);
        self.runtime.watch(events);
        assert_eq!(next(&mut heard).await, RuntimeEvent::Connected);
        heard
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        let client = self.host.client();
        let label = format!("io.switchback.daemon={}", self.daemon);
        on_a_runtime(async move {
            let options = ListContainersOptions {
                all: true,
                filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
                ..ListContainersOptions::default()
            };
            for left in client.list_containers(Some(options)).await.unwrap_or_default() {
                let options = RemoveContainerOptions { force: true, v: true, link: false };
                let _gone = client.remove_container(&left.id.unwrap(), Some(options)).await;
            }
        });
    }
}

fn image(name: &str) -> RevisionSpec {
    RevisionSpec {
        source: Source::Image(name.to_owned()),
        replicas: 1,
        port: 3000,
        env: [("GREETING".to_owned(), "good morning".to_owned())].into(),
        secrets: Default::default(),
        protocol: UpstreamProtocol::Http1,
        preamble: Default::default(),
        probe: ProbeSpec {
            kind: ProbeKind::Auto,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            rise: 1,
            fall: 1,
            deadline: PATIENCE,
        },
        stop_grace: GRACE,
        container: ContainerSpec::default(),
    }
}

async fn next(events: &mut mpsc::Receiver<RuntimeEvent>) -> RuntimeEvent {
    tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap()
}

async fn next_end(events: &mut mpsc::Receiver<RuntimeEvent>) -> (InstanceId, Exit) {
    loop {
        if let RuntimeEvent::Ended { instance, exit } = next(events).await {
            return (instance, exit);
        }
    }
}

const HTTPD: [&str; 6] = ["httpd", "-f", "-p", "3000", "-h", "/www"];

#[tokio::test]
async fn a_container_is_launched_reached_and_stopped() {
    let Some(yard) = Yard::new("launch") else { return };
    let instance = yard.run(&HTTPD).await;
    assert_eq!(instance.address.port(), 3000);
    let asked = image("").probe;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !prober::probe(&instance, &asked, UpstreamProtocol::Http1).await.healthy {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    assert_eq!(yard.run(&HTTPD).await, instance, "launching is idempotent");
    let later = DockerRuntime::new(&yard.host.url, &yard.daemon).unwrap();
    let found = later.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].ownership, yard.replica(0));
    assert_eq!(found[0].state, State::Running { instance: instance.clone(), health: None });

    later.stop(&instance.id, GRACE).await.unwrap();
    assert_eq!(yard.runtime.inspect(&instance.id).await.unwrap(), State::Gone);
    assert!(yard.runtime.list().await.unwrap().is_empty());
    later.stop(&instance.id, GRACE).await.unwrap();
}

#[tokio::test]
async fn the_engine_is_told_everything_that_was_configured() {
    let Some(yard) = Yard::new("settings") else { return };
    let client = yard.host.client();
    let networks = [format!("{}-a", yard.daemon), format!("{}-b", yard.daemon)];
    for name in &networks {
        let request =
            bollard::models::NetworkCreateRequest { name: name.clone(), ..Default::default() };
        client.create_network(request).await.unwrap();
    }
    let shared = tempfile::tempdir().unwrap();
    let mut spec =
        yard.spec(&["sh", "-c", "echo $GREETING; id; echo done > /shared/file; exec sleep 1000"]);
    spec.container.networks = networks.to_vec();
    spec.container.volumes = vec![format!("{}:/shared", shared.path().display())];
    spec.container.labels = [("team".to_owned(), "blue".to_owned())].into();
    spec.container.memory = 64 * 1024 * 1024;
    spec.container.cpu_millis = 1500;
    spec.container.pids = 50;
    spec.container.user = Some("0:1234".to_owned());
    let instance = yard.runtime.launch(&spec, &yard.replica(1)).await.unwrap();

    let found = client.inspect_container(&instance.id.0, None).await.unwrap();
    assert_eq!(found.name.unwrap(), format!("/switchback-{}-r3-12-1", yard.daemon));
    let host = found.host_config.unwrap();
    assert_eq!(host.memory, Some(64 * 1024 * 1024));
    assert_eq!(host.nano_cpus, Some(1_500_000_000));
    assert_eq!(host.pids_limit, Some(50));
    let policy = host.restart_policy.unwrap().name.unwrap().to_string();
    assert!(policy.is_empty() || policy == "no", "{policy}");
    let config = found.config.unwrap();
    assert_eq!(config.user.unwrap(), "0:1234");
    assert!(config.env.unwrap().contains(&"GREETING=good morning".to_owned()));
    let labels = config.labels.unwrap();
    for (name, value) in [
        ("team", "blue"),
        ("io.switchback.service", &yard.daemon),
        ("io.switchback.daemon", &yard.daemon),
        ("io.switchback.revision", "3"),
        ("io.switchback.rollout", "12"),
        ("io.switchback.replica", "1"),
    ] {
        assert_eq!(labels.get(name).map(String::as_str), Some(value), "{name}");
    }
    let joined = found.network_settings.unwrap().networks.unwrap();
    assert!(networks.iter().all(|name| joined.contains_key(name)), "{joined:?}");
    let first = joined[&networks[0]].ip_address.clone().unwrap();
    assert_eq!(instance.address.ip().to_string(), first, "reached on the first network");

    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !shared.path().join("file").exists() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let logs = yard.runtime.logs(&instance.id, 50).await.unwrap();
    assert_eq!(logs[0], "good morning");
    assert!(logs[1].contains("gid=1234"), "{logs:?}");
    assert_eq!(yard.runtime.logs(&instance.id, 1).await.unwrap().len(), 1);

    yard.runtime.stop(&instance.id, GRACE).await.unwrap();
    for name in &networks {
        client.remove_network(name).await.unwrap();
    }
    let missing = yard.runtime.launch(&spec, &yard.replica(2)).await.unwrap_err().to_string();
    assert!(missing.contains("docker network create"), "{missing}");
    assert!(yard.runtime.list().await.unwrap().is_empty(), "a failed launch leaves nothing");
}

#[tokio::test]
async fn a_container_of_somebody_else_is_left_alone() {
    let Some(yard) = Yard::new("neighbours") else { return };
    let ours = yard.run(&["sleep", "1000"]).await;
    // The same service, revision and rollout, of another daemon on the same engine.
    let neighbour = Yard {
        host: yard.host.clone(),
        daemon: format!("{}-other", yard.daemon),
        runtime: DockerRuntime::new(&yard.host.url, &format!("{}-other", yard.daemon)).unwrap(),
    };
    let theirs =
        neighbour.runtime.launch(&yard.spec(&["sleep", "1000"]), &yard.replica(0)).await.unwrap();
    assert_ne!(ours.id, theirs.id);
    assert_eq!(neighbour.runtime.list().await.unwrap().len(), 1);
    neighbour.runtime.stop(&theirs.id, GRACE).await.unwrap();
    assert!(matches!(yard.runtime.inspect(&ours.id).await.unwrap(), State::Running { .. }));
}

#[tokio::test]
async fn ends_are_told_with_code_signal_and_memory() {
    let Some(yard) = Yard::new("ends") else { return };
    let mut heard = yard.watch().await;
    let instance = yard.run(&["sh", "-c", "echo working; sleep 0.3; exit 7"]).await;
    let (id, exit) = next_end(&mut heard).await;
    assert_eq!(id, instance.id);
    assert_eq!(exit, Exit { code: Some(7), ..Exit::default() });
    assert_eq!(yard.runtime.inspect(&id).await.unwrap(), State::Ended(exit));
    assert_eq!(yard.runtime.logs(&id, 50).await.unwrap(), ["working"]);

    let mut hungry = yard.spec(&["sh", "-c", "sleep 0.3; exec tail /dev/zero"]);
    hungry.container.memory = 16 * 1024 * 1024;
    let hungry = yard.runtime.launch(&hungry, &yard.replica(1)).await.unwrap();
    let (id, exit) = next_end(&mut heard).await;
    assert_eq!(id, hungry.id);
    assert!(exit.out_of_memory, "{exit:?}");
    assert!(exit.to_string().contains("OOM"), "{exit}");

    let killed =
        yard.runtime.launch(&yard.spec(&["sleep", "1000"]), &yard.replica(2)).await.unwrap();
    yard.host.client().kill_container(&killed.id.0, None).await.unwrap();
    assert_eq!(
        next_end(&mut heard).await,
        (killed.id, Exit { code: Some(137), signal: Some(9), ..Exit::default() })
    );
}

#[tokio::test]
async fn what_ends_at_once_fails_to_launch_with_its_last_words() {
    let Some(yard) = Yard::new("at-once") else { return };
    let missing = yard.runtime.launch(&yard.spec(&["no-such-program"]), &yard.replica(0)).await;
    let why = missing.unwrap_err().to_string();
    assert!(why.contains("cannot be started") && why.contains("no-such-program"), "{why}");
    assert!(yard.runtime.list().await.unwrap().is_empty(), "a failed launch leaves nothing");
}

#[tokio::test]
async fn the_images_own_health_check_is_heard() {
    let Some(yard) = Yard::new("health") else { return };
    let name = import(&yard.host, &["HEALTHCHECK --interval=1s --retries=1 CMD test -e /tmp/well"]);
    let mut heard = yard.watch().await;
    let mut spec = image(&name);
    let script = "sleep 2; touch /tmp/well; sleep 3; rm /tmp/well; exec sleep 1000";
    spec.container.args = ["sh", "-c", script].map(str::to_owned).to_vec();
    let instance = yard.runtime.launch(&spec, &yard.replica(0)).await.unwrap();
    let State::Running { health, .. } = yard.runtime.inspect(&instance.id).await.unwrap() else {
        panic!()
    };
    assert_eq!(health, Some(false), "not yet");
    let mut said = Vec::new();
    while said.len() < 3 {
        if let RuntimeEvent::Health { healthy, .. } = next(&mut heard).await
            && said.last() != Some(&healthy)
        {
            said.push(healthy);
        }
    }
    assert_eq!(said, [false, true, false]);
}

#[tokio::test]
async fn what_is_in_the_way_is_seen_from_outside() {
    let Some(yard) = Yard::new("diagnose") else { return };
    let inward = yard.run(&["httpd", "-f", "-p", "127.0.0.1:3000", "-h", "/www"]).await;
    let spec = yard.spec(&["httpd", "-f", "-p", "8080", "-h", "/www"]);
    let elsewhere = yard.runtime.launch(&spec, &yard.replica(1)).await.unwrap();
    for (instance, expected) in [
        (inward, "the app listens on 127.0.0.1:3000 only"),
        (elsewhere, "not on port 3000: set port = 8080"),
    ] {
        let result = prober::probe(&instance, &image("").probe, UpstreamProtocol::Http1).await;
        assert!(!result.healthy && result.diagnosis.wants_a_closer_look(), "{result:?}");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let why = yard.runtime.diagnose(&instance).await.unwrap();
            if why.contains(expected) {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{why}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_tag_is_pinned_to_what_it_meant() {
    let Some(yard) = Yard::new("pinned") else { return };
    let spec = yard.runtime.prepare(&yard.spec(&["sleep", "1000"])).await.unwrap();
    let id = spec.container.image_id.clone().unwrap();
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(spec.source, Source::Image(busybox(&yard.host).to_owned()));
    // Whatever the tag means by then.
    let moved = RevisionSpec { source: Source::Image("moved:away".to_owned()), ..spec };
    let instance = yard.runtime.launch(&moved, &yard.replica(0)).await.unwrap();
    let found = yard.host.client().inspect_container(&instance.id.0, None).await.unwrap();
    assert_eq!(found.image.unwrap(), id);
}

#[tokio::test]
async fn an_image_that_nobody_has_is_named() {
    let Some(yard) = Yard::new("missing") else { return };
    // Nothing listens there.
    let spec = image("127.0.0.1:9/acme/web:1.10");
    let RuntimeError::NotFound(why) = yard.runtime.prepare(&spec).await.unwrap_err() else {
        panic!()
    };
    let expected =
        "image 127.0.0.1:9/acme/web:1.10 is not on this engine and could not be pulled: ";
    assert!(why.starts_with(expected) && why.len() > expected.len(), "{why}");
    let odd = yard.runtime.prepare(&image("Not An Image")).await.unwrap_err().to_string();
    assert!(odd.contains("Not An Image"), "{odd}");
}

fn strange(url: &str) -> DockerRuntime {
    DockerRuntime::new(url, "test").unwrap()
}

async fn why(runtime: &DockerRuntime) -> String {
    runtime.list().await.unwrap_err().to_string()
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_told_with_the_cure() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("docker.sock");
    let url = format!("unix://{}", socket.display());
    let runtime = strange(&url);
    let said = why(&runtime).await;
    assert!(said.contains("there is no Docker socket") && said.contains("DOCKER_HOST"), "{said}");
    // A listener that went without removing its socket.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let said = why(&runtime).await;
    assert!(said.contains("nothing listens on the Docker socket"), "{said}");
    let said = why(&strange("tcp://127.0.0.1:9")).await;
    assert!(said.contains("nothing listens on tcp://127.0.0.1:9"), "{said}");
    let odd = DockerRuntime::new("ssh://me@host", "test").unwrap_err().to_string();
    assert!(odd.contains("unix:///path"), "{odd}");
}

#[tokio::test]
async fn requests_carry_the_version_that_was_agreed() {
    let empty = |_: &str| Act::Answer(200, "[]".to_owned());
    for (newest, oldest, prefix) in
        [("1.41", "1.12", "/v1.41/"), ("1.60", "1.44", "/v1.53/"), ("1.52", "1.44", "/v1.52/")]
    {
        let fake = FakeEngine::of_version(newest, oldest, empty);
        let runtime = strange(&fake.url());
        assert!(runtime.list().await.unwrap().is_empty());
        assert!(runtime.list().await.unwrap().is_empty());
        let asked = fake.asked();
        assert_eq!(asked.len(), 3, "the version is asked once: {asked:?}");
        assert!(asked[1..].iter().all(|path| path.starts_with(prefix)), "{asked:?}");
    }
}

#[tokio::test]
async fn an_engine_of_another_age_is_told_with_the_cure() {
    let newer = FakeEngine::of_version("1.99", "1.60", |_| Act::Hang);
    let said = why(&strange(&newer.url())).await;
    assert!(
        said.contains("speaks API 1.60 and newer") && said.contains("upgrade Switchback"),
        "{said}"
    );
    let older = FakeEngine::of_version("1.24", "1.12", |_| Act::Hang);
    let said = why(&strange(&older.url())).await;
    assert!(said.contains("upgrade Docker"), "{said}");
    let other = FakeEngine::start(|_| Act::Answer(200, "{}".to_owned()));
    let said = why(&strange(&other.url())).await;
    assert!(said.contains("not a Docker Engine"), "{said}");
}

#[tokio::test]
async fn an_engine_that_was_replaced_is_asked_for_its_version_again() {
    let refuse = |_: &str| {
        let message = r#"{"message":"client version 1.41 is too old. Minimum supported API version is 1.44"}"#;
        Act::Answer(400, message.to_owned())
    };
    let fake = FakeEngine::of_version("1.41", "1.12", refuse);
    let runtime = strange(&fake.url());
    for _ in 0..2 {
        let said = why(&runtime).await;
        assert!(said.contains("too old"), "{said}");
    }
    assert_eq!(fake.asked().iter().filter(|path| *path == "/version").count(), 2);
}

#[tokio::test]
async fn a_hung_engine_holds_nobody() {
    let fake = FakeEngine::start(|_| Act::Hang);
    let runtime = strange(&fake.url());
    let begun = std::time::Instant::now();
    let said = why(&runtime).await;
    assert!(said.contains("it hangs") && said.contains("journalctl -u docker"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_connection_that_breaks_midway_is_told() {
    let fake = FakeEngine::of_version("1.41", "1.12", |_| Act::BreakOff);
    let runtime = strange(&fake.url());
    let error = runtime.list().await.unwrap_err();
    assert!(matches!(error, RuntimeError::Unreachable(_)), "{error:?}");
    assert!(error.to_string().contains("broke"), "{error}");
}

#[tokio::test]
async fn an_engine_that_goes_and_comes_back_is_told_once_each() {
    let answers = |path: &str| match path {
        path if path.contains("/events") => Act::BreakOff,
        _ => Act::Answer(200, r#"{"SystemTime":"2026-01-02T03:04:05.000000006Z"}"#.to_owned()),
    };
    let fake = FakeEngine::of_version("1.41", "1.12", answers);
    let runtime = strange(&fake.url());
    let (events, mut heard) = mpsc::channel(16);
    runtime.watch(events);
    for _ in 0..2 {
        assert_eq!(next(&mut heard).await, RuntimeEvent::Connected);
        assert!(matches!(next(&mut heard).await, RuntimeEvent::Disconnected { .. }));
    }
    let asked = fake.asked();
    let events = asked.iter().find(|path| path.contains("/events")).unwrap();
    assert!(events.contains("since=1767323045.000000006"), "{events}");
    drop(fake);
    let gone = loop {
        if let RuntimeEvent::Disconnected { reason } = next(&mut heard).await
            && reason.contains("there is no Docker socket")
        {
            break reason;
        }
    };
    assert!(gone.contains("start Docker"), "{gone}");
    // Still gone, still the same reason: nothing to tell.
    let silent = tokio::time::timeout(Duration::from_millis(500), heard.recv()).await;
    assert!(silent.is_err(), "{silent:?}");
}
