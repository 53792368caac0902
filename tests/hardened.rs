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
