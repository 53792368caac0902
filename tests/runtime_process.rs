//! Runtime `process`, with real shims and real children.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use switchback::model::id::{InstanceId, RevisionId, RolloutId, ServiceName};
use switchback::model::instance::{Exit, Ownership};
use switchback::model::revision::{
    ContainerSpec, ProbeKind, ProbeSpec, RevisionSpec, Source, UpstreamProtocol,
};
use switchback::runtime::process::ProcessRuntime;
use switchback::runtime::shim::record::Record;
use switchback::runtime::{Runtime, RuntimeError, RuntimeEvent, State};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

/// Longer than anything here takes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const GRACE: Duration = Duration::from_secs(5);

struct House {
    state: TempDir,
}

impl House {
    fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap() }
    }

    fn runtime(&self) -> ProcessRuntime {
        self.patient(Duration::from_secs(30))
    }

    fn patient(&self, orphan_grace: Duration) -> ProcessRuntime {
        ProcessRuntime::new(self.state.path(), PathBuf::from(env!("CARGO_BIN_EXE_switchback")))
            .with_orphan_grace(orphan_grace)
    }

    fn dir(&self, id: &InstanceId) -> PathBuf {
        self.state.path().join("instances").join(id.0.as_ref())
    }

    fn record(&self, id: &InstanceId) -> Record {
        Record::read(&self.dir(id)).unwrap()
    }
}

fn command(words: &[&str]) -> RevisionSpec {
    RevisionSpec {
        source: Source::Command(words.iter().map(ToString::to_string).collect()),
        replicas: 1,
        port: 0,
        env: BTreeMap::new(),
        secrets: Default::default(),
        protocol: UpstreamProtocol::Http1,
        preamble: Default::default(),
        probe: ProbeSpec {
            kind: ProbeKind::Auto,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 1,
            deadline: Duration::from_secs(30),
        },
        stop_grace: Duration::from_secs(1),
        container: ContainerSpec::default(),
    }
}

fn shell(script: &str) -> RevisionSpec {
    command(&["/bin/sh", "-c", script])
}

fn replica(replica: u32) -> Ownership {
    Ownership {
        service: ServiceName::new("web").unwrap(),
        revision: RevisionId(1),
        rollout: RolloutId(1),
        replica,
    }
}

fn pid_lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}

async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn next_end(events: &mut mpsc::Receiver<RuntimeEvent>) -> (InstanceId, Exit) {
    loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
        if let RuntimeEvent::Ended { instance, exit } = event {
            return (instance, exit);
        }
    }
}

fn pid_in(path: &Path) -> Option<i32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[tokio::test]
async fn an_app_is_launched_reached_and_stopped() {
    let house = House::new();
    let page = house.state.path().join("index.html");
    fs::write(&page, "hello from busybox").unwrap();
    let runtime = house.runtime();
    let root = house.state.path().to_str().unwrap();
    let spec = command(&["busybox", "httpd", "-f", "-p", "127.0.0.1:{port}", "-h", root]);
    let spec = runtime.prepare(&spec).await.unwrap();
    let instance = runtime.launch(&spec, &replica(0)).await.unwrap();
    assert_eq!(instance.id.0.as_ref(), "web-r1-1-0");

    let mut answer = String::new();
    eventually("it listens", || std::net::TcpStream::connect(instance.address).is_ok()).await;
    let mut stream = tokio::net::TcpStream::connect(instance.address).await.unwrap();
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").await.unwrap();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello from busybox"), "{answer}");

    let again = runtime.launch(&spec, &replica(0)).await.unwrap();
    assert_eq!(again, instance, "launching is idempotent");
    let found = runtime.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].ownership, replica(0));
    assert_eq!(found[0].state, State::Running { instance: instance.clone(), health: None });

    let pid = house.record(&instance.id).child.unwrap().pid;
    runtime.stop(&instance.id, GRACE).await.unwrap();
    assert!(!pid_lives(pid));
    assert_eq!(runtime.inspect(&instance.id).await.unwrap(), State::Gone);
    assert!(!house.dir(&instance.id).exists());
    runtime.stop(&instance.id, GRACE).await.unwrap();
}

#[tokio::test]
async fn port_environment_and_output_are_as_asked() {
    let house = House::new();
    let runtime = house.runtime();
    let mut spec = shell("echo port {port} $PORT; echo $GREETING >&2; exec sleep 1000");
    spec.env.insert("GREETING".to_owned(), "good morning".to_owned());
    let instance = runtime.launch(&spec, &replica(0)).await.unwrap();
    let port = instance.address.port();
    let expected = [format!("port {port} {port}"), "good morning".to_owned()];
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while runtime.logs(&instance.id, 50).await.unwrap() != expected {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(runtime.logs(&instance.id, 1).await.unwrap(), ["good morning"]);
    runtime.stop(&instance.id, GRACE).await.unwrap();
}

#[tokio::test]
async fn replicas_have_ports_of_their_own() {
    let house = House::new();
    let runtime = house.runtime();
    let spec = command(&["sleep", "1000"]);
    let (owners, mut ports) = ((0..4).map(replica).collect::<Vec<_>>(), Vec::new());
    let launches = owners.iter().map(|owner| runtime.launch(&spec, owner));
    for launched in futures_util::future::join_all(launches).await {
        ports.push(launched.unwrap().address.port());
    }
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 4);
    for found in runtime.list().await.unwrap() {
        runtime.stop(&found.id, GRACE).await.unwrap();
    }
    assert!(runtime.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_daemon_that_comes_back_finds_the_same_processes() {
    let house = House::new();
    let first = house.runtime();
    let instance = first.launch(&command(&["sleep", "1000"]), &replica(0)).await.unwrap();
    let before = house.record(&instance.id);
    drop(first);

    let second = house.runtime();
    let found = second.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].state, State::Running { instance: instance.clone(), health: None });
    assert_eq!(house.record(&instance.id), before, "same shim, same child");
    assert!(pid_lives(before.child.clone().unwrap().pid));

    let (events, mut ours) = mpsc::channel(8);
    second.watch(events);
    assert_eq!(ours.recv().await, Some(RuntimeEvent::Connected));
    second.stop(&instance.id, GRACE).await.unwrap();
    let (id, exit) = next_end(&mut ours).await;
    assert_eq!((id, exit.signal), (instance.id, Some(15)));
    assert!(!pid_lives(before.child.unwrap().pid));
}

/// A launch by a daemon that dies when its shim was started and has not said a word. The shim waits
/// for the file `go`, and those that are started later do not; every start of the app adds a line to
/// `starts`.
async fn cut_short(house: &House) -> (PathBuf, RevisionSpec, i32) {
    let at = |name: &str| house.state.path().join(name);
    let slow = at("slow");
    let script = format!(
        "#!/bin/sh\nif mkdir {first}; then echo $$ > {began}.new; mv {began}.new {began}\n\
         while [ ! -e {go} ]; do sleep 0.02; done; fi\nexec {program} \"$@\"\n",
        first = at("first").display(),
        began = at("began").display(),
        go = at("go").display(),
        program = env!("CARGO_BIN_EXE_switchback"),
    );
    fs::write(&slow, script).unwrap();
    fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let spec = shell(&format!("echo {{port}} >> {}; exec sleep 1000", at("starts").display()));

    let (first, began, owner) =
        (ProcessRuntime::new(house.state.path(), slow.clone()), at("began"), replica(0));
    tokio::select! {
        launched = first.launch(&spec, &owner) => panic!("{launched:?}"),
        () = eventually("the shim is started", || began.exists()) => {}
    }
    drop(first);
    let pid = pid_in(&began).unwrap();
    assert!(pid_lives(pid));
    (slow, spec, pid)
}

#[tokio::test]
async fn a_shim_that_is_still_to_come_is_waited_for() {
    let house = House::new();
    let (slow, spec, shim) = cut_short(&house).await;
    let second = std::sync::Arc::new(ProcessRuntime::new(house.state.path(), slow));
    let looking = tokio::spawn({
        let second = std::sync::Arc::clone(&second);
        async move { second.list().await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    fs::write(house.state.path().join("go"), "").unwrap();
    let found = looking.await.unwrap().unwrap();
    let State::Running { instance, .. } = &found[0].state else { panic!("{found:?}") };
    let again = second.launch(&spec, &replica(0)).await.unwrap();
    assert_eq!(again, *instance);
    assert_eq!(house.record(&again.id).shim.pid, shim, "the shim of the former daemon");
    let starts = fs::read_to_string(house.state.path().join("starts")).unwrap();
    assert_eq!(starts, format!("{}\n", again.address.port()), "one start, on the port told");
    second.stop(&again.id, GRACE).await.unwrap();
    assert!(!pid_lives(shim), "a stop leaves no shim either");
}

#[tokio::test]
async fn a_shim_that_does_not_come_is_ended_before_another_starts() {
    let house = House::new();
    let (slow, spec, hung) = cut_short(&house).await;
    let second = ProcessRuntime::new(house.state.path(), slow);
    let instance = second.launch(&spec, &replica(0)).await.unwrap();
    assert!(!pid_lives(hung), "it could start the app a second time");
    fs::write(house.state.path().join("go"), "").unwrap();
    let record = house.record(&instance.id);
    assert!(record.shim.runs() && record.child.unwrap().runs());
    assert_ne!(record.shim.pid, hung);
    let starts = fs::read_to_string(house.state.path().join("starts")).unwrap();
    assert_eq!(starts, format!("{}\n", instance.address.port()));
    second.stop(&instance.id, GRACE).await.unwrap();
}

#[tokio::test]
async fn without_a_daemon_nothing_is_left_behind() {
    let house = House::new();
    let runtime = house.patient(Duration::from_secs(1));
    let instance = runtime.launch(&command(&["sleep", "1000"]), &replica(0)).await.unwrap();
    let record = house.record(&instance.id);
    let (shim, child) = (record.shim.pid, record.child.unwrap().pid);
    drop(runtime);
    eventually("the orphan and its shim are gone", || !pid_lives(child) && !pid_lives(shim)).await;

    let later = house.runtime();
    let found = later.list().await.unwrap();
    let State::Ended(exit) = &found[0].state else { panic!("{found:?}") };
    assert_eq!(exit.signal, Some(15));
    later.stop(&found[0].id, GRACE).await.unwrap();
    assert!(later.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_killed_shim_takes_its_instance_along() {
    let house = House::new();
    let runtime = house.runtime();
    let (events, mut ours) = mpsc::channel(8);
    runtime.watch(events);
    let instance = runtime.launch(&shell("sleep 1000 & sleep 1000"), &replica(0)).await.unwrap();
    let record = house.record(&instance.id);
    let child = record.child.unwrap();
    kill(record.shim.pid, "KILL");
    let (id, exit) = next_end(&mut ours).await;
    assert_eq!((id, exit.signal), (instance.id.clone(), Some(9)));
    assert!(!child.runs());
    let State::Ended(_) = runtime.inspect(&instance.id).await.unwrap() else { panic!() };
    runtime.stop(&instance.id, GRACE).await.unwrap();
}

#[tokio::test]
async fn a_shim_killed_while_the_daemon_was_away_is_cleaned_up() {
    let house = House::new();
    let runtime = house.runtime();
    let instance = runtime.launch(&command(&["sleep", "1000"]), &replica(0)).await.unwrap();
    let record = house.record(&instance.id);
    drop(runtime);
    kill(record.shim.pid, "KILL");
    eventually("the shim is dead", || !record.shim.runs()).await;
    let child = record.child.unwrap();
    assert!(child.runs(), "nobody was there to end it");

    let later = house.runtime();
    let found = later.list().await.unwrap();
    assert!(matches!(found[0].state, State::Ended(_)), "{found:?}");
    eventually("the child is dead", || !child.runs()).await;
    let again = later.launch(&command(&["sleep", "1000"]), &replica(0)).await.unwrap();
    assert!(matches!(later.inspect(&again.id).await.unwrap(), State::Running { .. }));
    later.stop(&again.id, GRACE).await.unwrap();
}

#[tokio::test]
async fn launching_anew_ends_what_a_killed_shim_left() {
    let house = House::new();
    let runtime = house.runtime();
    let instance = runtime.launch(&command(&["sleep", "1000"]), &replica(0)).await.unwrap();
    let record = house.record(&instance.id);
    drop(runtime);
    kill(record.shim.pid, "KILL");
    eventually("the shim is dead", || !record.shim.runs()).await;

    let later = house.runtime();
    let again = later.launch(&command(&["sleep", "1000"]), &replica(0)).await.unwrap();
    assert_eq!(again.id, instance.id);
    assert!(!record.child.unwrap().runs());
    assert_eq!(later.list().await.unwrap().len(), 1);
    later.stop(&again.id, GRACE).await.unwrap();
}

#[tokio::test]
async fn stop_reaches_grandchildren_and_those_who_left_the_group() {
    let house = House::new();
    let runtime = house.runtime();
    let (inside, outside) = (house.state.path().join("inside"), house.state.path().join("outside"));
    let script = format!(
        "trap '' TERM; sleep 1000 & echo $! > {}; setsid sh -c 'echo $$ > {}; exec sleep 1000' & while :; do sleep 0.1; done",
        inside.display(),
        outside.display()
    );
    let instance = runtime.launch(&shell(&script), &replica(0)).await.unwrap();
    eventually("both have begun", || pid_in(&inside).and(pid_in(&outside)).is_some()).await;
    let pids = [pid_in(&inside).unwrap(), pid_in(&outside).unwrap()];
    let (events, mut ours) = mpsc::channel(8);
    runtime.watch(events);
    runtime.stop(&instance.id, Duration::from_millis(300)).await.unwrap();
    assert_eq!(next_end(&mut ours).await.1.signal, Some(9), "SIGTERM was ignored");
    for pid in pids {
        eventually("a grandchild is dead", || !pid_lives(pid)).await;
    }
}

#[tokio::test]
async fn an_app_behind_a_wrapper_keeps_its_grace() {
    let house = House::new();
    let runtime = house.runtime();
    let last_words = house.state.path().join("last-words");
    let script = format!(
        "sh -c 'trap \"sleep 0.3; echo bye > {}; exit\" TERM; echo ready; while :; do sleep 0.05; done'; true",
        last_words.display()
    );
    let instance = runtime.launch(&shell(&script), &replica(0)).await.unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while runtime.logs(&instance.id, 1).await.unwrap() != ["ready"] {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    runtime.stop(&instance.id, GRACE).await.unwrap();
    assert_eq!(fs::read_to_string(last_words).unwrap(), "bye\n");
}

#[tokio::test]
async fn exits_are_told_with_code_and_signal() {
    let house = House::new();
    let runtime = house.runtime();
    let (events, mut ours) = mpsc::channel(8);
    runtime.watch(events);
    let instance =
        runtime.launch(&shell("echo working; sleep 0.3; exit 7"), &replica(0)).await.unwrap();
    let (id, exit) = next_end(&mut ours).await;
    assert_eq!(id, instance.id);
    assert_eq!(exit, Exit { code: Some(7), ..Exit::default() });
    assert_eq!(runtime.logs(&instance.id, 50).await.unwrap(), ["working"]);
    assert_eq!(runtime.inspect(&instance.id).await.unwrap(), State::Ended(exit));

    runtime.launch(&shell("sleep 0.3; kill -SEGV $$"), &replica(1)).await.unwrap();
    assert_eq!(next_end(&mut ours).await.1.signal, Some(11));
    for found in runtime.list().await.unwrap() {
        runtime.stop(&found.id, GRACE).await.unwrap();
    }
}

#[tokio::test]
async fn what_cannot_run_is_refused_in_one_sentence() {
    let house = House::new();
    let runtime = house.runtime();
    let missing = command(&["/no/such/program"]);
    let RuntimeError::NotFound(why) = runtime.prepare(&missing).await.unwrap_err() else {
        panic!()
    };
    assert!(why.contains("there is no program"), "{why}");
    let RuntimeError::NotFound(why) = runtime.launch(&missing, &replica(0)).await.unwrap_err()
    else {
        panic!()
    };
    assert!(why.contains("there is no program \"/no/such/program\""), "{why}");

    let plain = house.state.path().join("plain");
    fs::write(&plain, "text").unwrap();
    let refused = command(&[plain.to_str().unwrap()]);
    let RuntimeError::NotFound(why) = runtime.launch(&refused, &replica(0)).await.unwrap_err()
    else {
        panic!()
    };
    assert!(why.contains("chmod +x"), "{why}");

    let error =
        runtime.launch(&shell("echo cannot bind >&2; exit 3"), &replica(0)).await.unwrap_err();
    assert_eq!(error.to_string(), "the instance exited with code 3 right after its start");
    let RuntimeError::Ended { exit, logs, .. } = error else { panic!() };
    assert_eq!((exit.code, logs), (Some(3), vec!["cannot bind".to_owned()]));
    assert!(runtime.list().await.unwrap().is_empty(), "a failed launch leaves nothing");
}

#[tokio::test]
async fn a_wrong_port_is_diagnosed() {
    let house = House::new();
    let runtime = house.runtime();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listens = format!("127.0.0.1:{other}");
    let spec = command(&["busybox", "httpd", "-f", "-p", &listens, "-h", "/tmp"]);
    let instance = runtime.launch(&spec, &replica(0)).await.unwrap();
    eventually("it listens", || std::net::TcpStream::connect(&listens).is_ok()).await;
    let why = runtime.diagnose(&instance).await.unwrap();
    assert!(why.starts_with(&format!("the app listens on {listens}, not on port")), "{why}");
    assert!(why.contains("{port}"), "{why}");
    runtime.stop(&instance.id, GRACE).await.unwrap();
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_is_named() {
    let house = House::new();
    let file = house.state.path().join("file");
    fs::write(&file, "").unwrap();
    let runtime = ProcessRuntime::new(&file, PathBuf::from(env!("CARGO_BIN_EXE_switchback")));
    let error = runtime.launch(&command(&["sleep", "1"]), &replica(0)).await.unwrap_err();
    assert!(error.to_string().contains("set [state] dir"), "{error}");
}

fn kill(pid: i32, signal: &str) {
    let status =
        std::process::Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(status.unwrap().success());
}
