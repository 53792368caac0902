//! An engine whose disk is too small for what a checkpoint brings back.

use std::fs;

use bollard::query_parameters::ListVolumesOptions;

use crate::support::daemon::{Daemon, Runs, SHORT};
use crate::support::engine::{DockerHost, SmallEngine, import, on_a_runtime};
use crate::support::skipped;

/// An app with some thousand files in its volume, of which each is a kilobyte of an archive and a page of
/// a disk.
const APP: [&str; 3] = [
    "sh",
    "-c",
    "if ! test -f /data/f3999; then i=0; \
     while test $i -lt 4000; do echo $i > /data/f$i; i=$((i+1)); done; fi; \
     exec httpd -f -p 3000 -h /data",
];

fn volumes(host: &DockerHost) -> Vec<String> {
    let client = host.client();
    let listed = on_a_runtime(async move { client.list_volumes(None::<ListVolumesOptions>).await });
    listed.unwrap().volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect()
}

/// Fills the engine's disk but for so many bytes.
fn fill(small: &SmallEngine, but: u64) {
    let filler = small.data().join("filler");
    let _none = fs::remove_file(&filler);
    let disk = rustix::fs::statvfs(small.data()).unwrap();
    let filled = (disk.f_bavail * disk.f_frsize).checked_sub(but).expect("a disk with room");
    fs::write(&filler, vec![7; usize::try_from(filled).unwrap()]).unwrap();
}

#[test]
fn a_restore_that_fills_the_disk_leaves_nothing_and_touches_nothing() {
    if crate::support::engine::engine().is_none() {
        return;
    }
    let small = match SmallEngine::start(128) {
        Ok(small) => small,
        Err(why) => return skipped(&format!("no engine with a small disk: {why}")),
    };
    let image = import(&small.host, &[]);
    let mut daemon = Daemon::configured(Runs::Processes, "").unwrap();
    let plan = format!(
        "{SHORT}volumes = [\"shop:/data\"]\nbackup = {{ volumes = [\"/data\"] }}\nsteps = \"100%\"\n\
         probe = {{ path = \"/f3999\", interval = \"200ms\", timeout = \"2s\", rise = 1 }}\n"
    );
    let text = daemon.file_with(&small.host.url, &plan);
    // Its containers go with the engine; nothing else marks them as the story's.
    let lines = text.lines().filter(|line| !line.starts_with("env ="));
    let lines = lines.map(|line| match line.starts_with("command =") {
        true => format!("image = {image:?}\nport = 3000\nargs = {APP:?}"),
        false => line.to_owned(),
    });
    let text = lines.collect::<Vec<_>>().join("\n");
    daemon.configure(&text.replace("stop_grace = \"5s\"", "stop_grace = \"1s\""));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    let said = daemon.cli(&["checkpoint", "create", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    let id = said.stdout.trim().to_owned();
    let unharmed = || {
        assert_eq!(volumes(&small.host), ["shop"], "nothing half-written stays");
        let answer = daemon.get("/f7").unwrap();
        assert_eq!((answer.status, answer.body.trim()), (200, "7"), "what serves is untouched");
        let web = daemon.service();
        assert_eq!((&web["stable"]["revision"], &web["phase"]), (&1.into(), &"promoted".into()));
    };

    // There is room for what the archive has, and not for what becomes of it: it fills midway.
    fill(&small, 10_000_000);
    let said = daemon.cli(&["checkpoint", "restore", "web", &id]);
    assert_eq!(said.code, 1, "{said:?}");
    let filled = format!("the engine's disk filled while {id} was restored, which takes some ");
    assert!(said.stderr.contains(&filled), "{said:?}");
    assert!(said.stderr.contains("nothing of it is kept, what serves is as it was"), "{said:?}");
    unharmed();
    let said = daemon.cli(&["checkpoint", "verify", &id, "--restore-test"]);
    assert!(said.code == 1 && said.stderr.contains("disk filled while"), "{said:?}");
    unharmed();

    // There is no room, which is known before.
    fill(&small, 2_000_000);
    let said = daemon.cli(&["checkpoint", "restore", "web", &id]);
    assert_eq!(said.code, 1, "{said:?}");
    let short = format!("not enough room where the engine keeps its data: {id} takes some ");
    assert!(said.stderr.contains(&short) && said.stderr.contains("MB are free"), "{said:?}");
    unharmed();

    // With room it goes.
    fs::remove_file(small.data().join("filler")).unwrap();
    let said = daemon.cli(&["checkpoint", "restore", "web", &id]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(daemon.service()["stable"]["revision"], 2);
    assert_eq!(daemon.get("/f3999").unwrap().body.trim(), "3999");
    daemon.terminate();
}
