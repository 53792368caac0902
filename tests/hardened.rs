//! What a container may not do, as the kernel sees it.

use bollard::models::ContainerInspectResponse;

use crate::support::daemon::{Daemon, Runs, SHORT};
use crate::support::engine::on_a_runtime;

fn inspected(daemon: &Daemon) -> ContainerInspectResponse {
    let web = daemon.service();
    let id = web["stable"]["instances"][0]["id"].as_str().unwrap().to_owned();
    let client = daemon.engine().unwrap().client();
    on_a_runtime(async move { client.inspect_container(&id, None).await }).unwrap()
}

/// A line of what the kernel says about the first process in a container.
fn kernel(found: &ContainerInspectResponse, name: &str) -> Vec<String> {
    let pid = found.state.as_ref().unwrap().pid.unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_container_may_do_little_unless_it_is_asked_for() {
    let Some(daemon) = Daemon::begin(Runs::Containers, SHORT) else { return };
    let found = inspected(&daemon);
    assert_eq!(kernel(&found, "Uid:"), ["65534"; 4]);
    assert_eq!(kernel(&found, "NoNewPrivs:"), ["1"]);
    for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
        assert_eq!(kernel(&found, set), ["0000000000000000"], "{set}");
    }
    let host = found.host_config.unwrap();
    assert_eq!((host.readonly_rootfs, host.pids_limit), (Some(true), Some(4_096)));
    let tmpfs = host.tmpfs.unwrap();
    assert!(tmpfs.contains_key("/tmp") && tmpfs.contains_key("/run"), "{tmpfs:?}");
    let log = host.log_config.unwrap();
    let options = log.config.unwrap();
    assert_eq!(log.typ.as_deref(), Some("json-file"));
    assert_eq!((options["max-size"].as_str(), options["max-file"].as_str()), ("10485760", "5"));
    assert_eq!(daemon.cli(&["logs", "web"]).code, 0);

    // Each can be had back.
    let open = format!(
        "user = \"0\"\ncapabilities = \"default\"\nno_new_privileges = false\nread_only = false\n\
         pids = 0\nlog_size = 0\n{SHORT}"
    );
    daemon.configure(&daemon.file(&open));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let said = daemon.cli(&["deploy", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    let found = inspected(&daemon);
    assert_eq!(kernel(&found, "Uid:"), ["0"; 4]);
    assert_eq!(kernel(&found, "NoNewPrivs:"), ["0"]);
    assert_ne!(kernel(&found, "CapEff:"), ["0000000000000000"]);
    let host = found.host_config.unwrap();
    assert_ne!(host.readonly_rootfs, Some(true));
    assert!(host.pids_limit.unwrap_or(0) <= 0, "{:?}", host.pids_limit);

    // One of root's powers, and no more: bit 10 is NET_BIND_SERVICE.
    let some = format!("user = \"0\"\ncapabilities = [\"cap_net_bind_service\"]\n{SHORT}");
    daemon.configure(&daemon.file(&some));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    assert_eq!(daemon.cli(&["deploy", "web"]).code, 0);
    assert_eq!(kernel(&inspected(&daemon), "CapEff:"), ["0000000000000400"]);
}

#[test]
fn what_is_written_wrong_is_said() {
    let Some(daemon) = Daemon::begin(Runs::Containers, SHORT) else { return };
    for (wrong, says) in [
        ("capabilities = \"NET_BIND_SERVIC\"", "did you mean \"NET_BIND_SERVICE\"?"),
        ("tmpfs = [\"tmp\"]", "expected a path in the container"),
        ("log_files = 0", "log_files"),
    ] {
        daemon.configure(&daemon.file(&format!("{wrong}\n{SHORT}")));
        let said = daemon.cli(&["check"]);
        assert_eq!(said.code, 7, "{said:?}");
        assert!(format!("{}{}", said.stdout, said.stderr).contains(says), "{wrong}: {said:?}");
    }
}

/// What must not be found anywhere but in the file.
const SECRET: &str = "swordfish-of-the-story";

/// All that is told of a daemon, to people and programs.
fn all_that_is_told(daemon: &Daemon) -> String {
    let mut all = daemon.log() + &daemon.metrics();
    for words in [
        &["status", "-o", "json"][..],
        &["config", "show"],
        &["history", "web", "-o", "json"],
        &["explain", "1"],
        &["events"],
        &["logs", "web"],
        &["audit", "-o", "json"],
    ] {
        let said = daemon.cli(words);
        all.push_str(&said.stdout);
        all.push_str(&said.stderr);
    }
    all
}

/// Files below a directory that hold this.
fn holding(dir: &std::path::Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        // A link is followed by nobody here.
        match entry.file_type().unwrap() {
            kind if kind.is_dir() => found.extend(holding(&path, text)),
            kind if kind.is_file() => {
                let bytes = std::fs::read(&path).unwrap_or_default();
                if bytes.windows(text.len()).any(|some| some == text.as_bytes()) {
                    found.push(path.display().to_string());
                }
            }
            _ => {}
        }
    }
    found
}

#[test]
fn a_container_finds_its_secrets_in_files_and_nobody_else_does() {
    let Some(host) = crate::support::engine::engine() else { return };
    let image = crate::support::engine::import(&host, &[]);
    let Some(mut daemon) = crate::kept_images::of_image(&image, "") else { return };
    let file = daemon.home().join("database.txt");
    let plan = "secrets = { PASSWORD = \"database.txt\", TOKEN = \"env:STORY_TOKEN\" }\n\
                own_network = true\n";
    crate::kept_images::configure(&daemon, &image, plan);
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    let args = text.lines().find(|line| line.starts_with("args =")).unwrap().to_owned();
    let serves = "args = [\"sh\", \"-c\", \"exec httpd -f -p 3000 -h /run/secrets\"]";
    let memory = tempfile::Builder::new().prefix("story-").tempdir_in("/dev/shm").unwrap();
    let apart = format!("[state]\nsecrets = {:?}\n", memory.path().join("secrets"));
    let text = text.replace(&args, serves).replace("path = \"/\"", "path = \"/PASSWORD\"");
    daemon.configure(&text.replace("[state]\n", &apart));

    std::fs::write(&file, SECRET).unwrap();
    rustix::fs::chmod(&file, rustix::fs::Mode::from_raw_mode(0o400)).unwrap();
    daemon.variables = vec![("STORY_TOKEN".to_owned(), format!("{SECRET}-token"))];
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");

    // Nobody in place of root reads it, and cannot write it.
    let found = inspected(&daemon);
    assert_eq!(kernel(&found, "Uid:"), ["65534"; 4]);
    daemon.until("it is there", || daemon.get("/PASSWORD").is_ok_and(|a| a.body == SECRET));
    assert_eq!(daemon.get("/TOKEN").unwrap().body, format!("{SECRET}-token"));
    let mounts = found.mounts.clone().unwrap();
    let mount = mounts.iter().find(|m| m.destination.as_deref() == Some("/run/secrets")).unwrap();
    assert_eq!(mount.rw, Some(false));
    let shown = serde_json::to_string(&found).unwrap() + &all_that_is_told(&daemon);
    assert!(!shown.contains(SECRET), "a secret is shown");
    let told = daemon.cli(&["checkpoint", "create", "web"]);
    assert_eq!(told.code, 0, "{told:?}");
    let archive = daemon.state().join(format!("checkpoints/{}.tar.zst", told.stdout.trim()));
    let archive = zstd::decode_all(&std::fs::read(archive).unwrap()[..]).unwrap();
    let holds = archive.windows(SECRET.len()).any(|bytes| bytes == SECRET.as_bytes());
    assert!(!holds, "a checkpoint has a secret");

    // It has a network that no other service is on.
    let networks = found.network_settings.unwrap().networks.unwrap();
    let names: Vec<&String> = networks.keys().collect();
    let [network] = &names[..] else { panic!("{names:?}") };
    assert!(network.starts_with("switchback-web-"), "{network}");

    // One that is not there is said before anything starts. A new value is taken with the next start;
    // what a container had goes with it.
    let kept = std::path::PathBuf::from(mount.source.clone().unwrap());
    assert!(kept.join("PASSWORD").exists() && kept.starts_with(memory.path()), "{kept:?}");
    assert_eq!(holding(&daemon.state(), SECRET), [""; 0], "a secret is on the disk");
    std::fs::remove_file(&file).unwrap();
    let said = daemon.cli(&["deploy", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    let missing = "the secret PASSWORD cannot be had from";
    assert!(said.stderr.contains(missing) && said.stderr.contains("No such file"), "{said:?}");
    std::fs::write(&file, "another").unwrap();
    let said = daemon.cli(&["deploy", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("the new one", || daemon.get("/PASSWORD").is_ok_and(|a| a.body == "another"));
    daemon.until("the former is gone", || !kept.exists());

    // Without it, the network is nobody's.
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    daemon.configure(&text.replace("own_network = true", "own_network = false"));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    assert_eq!(daemon.cli(&["deploy", "web"]).code, 0);
    daemon.until("nothing else runs", || daemon.running().len() == 1);
    let said = daemon.cli(&["clean", "--yes"]);
    assert!(said.code == 0 && said.stdout.contains(network.as_str()), "{said:?}");
    let client = daemon.engine().unwrap().client();
    let name = (*network).clone();
    let gone = on_a_runtime(async move { client.inspect_network(&name, None).await.is_err() });
    assert!(gone, "the network stays");
}

#[test]
fn a_process_finds_its_secrets_in_files_and_gains_nothing() {
    let mut daemon = Daemon::configured(Runs::Processes, "").unwrap();
    let told = daemon.home().join("told");
    let script = format!(
        "cat \"$CREDENTIALS_DIRECTORY/PASSWORD\" > {told:?}; grep NoNewPrivs /proc/self/status >> \
         {told:?}; exec {} sample-app --port {{port}}",
        crate::support::daemon::PROGRAM
    );
    std::fs::write(daemon.home().join("database.txt"), format!("{SECRET}\n")).unwrap();
    let plan = format!("{SHORT}keep_warm = \"0s\"\nsecrets = {{ PASSWORD = \"database.txt\" }}\n");
    // In memory, where there is such a place.
    let memory = tempfile::Builder::new().prefix("story-").tempdir_in("/dev/shm").unwrap();
    let secrets = memory.path().join("secrets");
    let configure = |daemon: &Daemon, more: &str| {
        let text = daemon.file(&format!("{plan}{more}"));
        let text = text.replace("[state]\n", &format!("[state]\nsecrets = {secrets:?}\n"));
        let lines = text.lines().map(|line| match line.starts_with("command =") {
            true => format!("command = [\"/bin/sh\", \"-c\", {script:?}]"),
            false => line.to_owned(),
        });
        daemon.configure(&lines.collect::<Vec<_>>().join("\n"));
    };
    configure(&daemon, "");
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    let read = || std::fs::read_to_string(&told).unwrap();
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("NoNewPrivs:")).unwrap();
    assert_eq!(read(), format!("{SECRET}\n{own}\n"));
    let shown = all_that_is_told(&daemon);
    assert!(!shown.contains(SECRET), "a secret is shown");
    let said = daemon.cli(&["doctor"]);
    let place = format!("secrets of instances lie in memory, below {}", secrets.display());
    assert!(said.stdout.contains(&place), "{said:?}");
    assert_eq!(holding(&daemon.state(), SECRET), [""; 0], "a secret is on the disk");
    let [kept] = &holding(&secrets, SECRET)[..] else { panic!("once in memory") };
    let mode = std::fs::metadata(&secrets).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o077, 0);
    let pid = &daemon.running()[0];
    let environ = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(!environ.contains(SECRET), "a variable has a secret");

    configure(&daemon, "no_new_privileges = true\n");
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    assert_eq!(daemon.cli(&["deploy", "web"]).code, 0);
    assert_eq!(read(), format!("{SECRET}\nNoNewPrivs:\t1\n"));
    daemon.until("the former's are gone", || !std::path::Path::new(kept).exists());

    for (wrong, says) in [
        ("secrets = { \"a/b\" = \"x\" }", "cannot name a secret"),
        ("secrets = { A = 5 }", "it is not said where the secret A is"),
    ] {
        daemon.configure(&daemon.file(&format!("{wrong}\n{SHORT}")));
        let said = daemon.cli(&["check"]);
        assert_eq!(said.code, 7, "{said:?}");
        assert!(format!("{}{}", said.stdout, said.stderr).contains(says), "{wrong}: {said:?}");
    }
}

/// It is up, and fails for what it may not do; or serves for a while and ends for it.
#[test]
fn what_keeps_a_container_from_its_work_later_is_said() {
    let Some(host) = crate::support::engine::engine() else { return };
    let image = crate::support::engine::import(&host, &[]);
    let Some(mut daemon) = crate::kept_images::of_image(&image, "") else { return };
    crate::kept_images::configure(&daemon, &image, "");
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    let args = text.lines().find(|line| line.starts_with("args =")).unwrap().to_owned();
    // Its page cannot be had before it has written what it may not.
    let broken = "args = [\"sh\", \"-c\", \"echo > /var.lock; while true; do echo 'HTTP/1.0 500 No' | busybox nc -l -p 3000 >/dev/null; done\"]";
    let failing = text.replace(&args, broken).replace("rise = 1", "rise = 1, deadline = \"5s\"");
    daemon.configure(&failing);
    daemon.start();
    let web = daemon.wait("its end", |web| web["phase"] == "rolled_back");
    let note = web["notes"][0].as_str().unwrap();
    assert!(note.contains("its root file system cannot be written"), "{note}");

    let late = "args = [\"sh\", \"-c\", \"httpd -p 3000 -h /www; while ! test -f /tmp/go; do sleep 0.1; done; echo > /var.lock; exit 3\"]";
    daemon.configure(&text.replace(&args, late));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let said = daemon.cli(&["deploy", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    let web = daemon.wait("it serves", |web| web["phase"] == "promoted");
    let id = web["stable"]["instances"][0]["id"].as_str().unwrap().to_owned();
    let client = daemon.engine().unwrap().client();
    on_a_runtime(async move {
        let config = bollard::models::ExecConfig {
            cmd: Some(vec!["touch".to_owned(), "/tmp/go".to_owned()]),
            ..bollard::models::ExecConfig::default()
        };
        let exec = client.create_exec(&id, config).await.unwrap().id;
        client.start_exec(&exec, None).await.unwrap();
    });
    daemon.until("the reason", || {
        let told = daemon.cli(&["events"]).stdout;
        told.contains("exited with code 3: its root file system cannot be written")
    });
}

#[test]
fn what_keeps_a_container_from_becoming_healthy_is_said() {
    let Some(host) = crate::support::engine::engine() else { return };
    let image = crate::support::engine::import(&host, &[]);
    let Some(mut daemon) = crate::kept_images::of_image(&image, "") else { return };
    crate::kept_images::configure(&daemon, &image, "");
    let text = std::fs::read_to_string(daemon.config()).unwrap();
    let args = text.lines().find(|line| line.starts_with("args =")).unwrap().to_owned();
    // It runs on, and does not serve.
    let stuck = "args = [\"sh\", \"-c\", \"until echo > /var.lock; do sleep 0.2; done\"]";
    let text = text.replace(&args, stuck).replace("rise = 1", "rise = 1, deadline = \"3s\"");
    daemon.configure(&text);
    daemon.start();
    let web = daemon.wait("its end", |web| web["phase"] == "rolled_back");
    let note = web["notes"][0].as_str().unwrap();
    assert!(note.contains("not healthy within 3s"), "{note}");
    assert!(note.contains("its root file system cannot be written"), "{note}");
    assert!(note.contains("`tmpfs`"), "{note}");
}
