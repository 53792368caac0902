//! Checkpoints on a real engine, with real volumes: kept, checked, damaged, brought back.

use std::fs;
use std::path::{Path, PathBuf};

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{ListVolumesOptions, RemoveImageOptions, RemoveVolumeOptions};
use serde_json::Value;

use crate::kept_images::{configure, of_image};
use crate::support::daemon::Daemon;
use crate::support::engine::{DockerHost, import, on_a_runtime, root_with};
use crate::support::registry::Registry;
use crate::support::skipped;

/// An app that shows what is in its volume; its first instance says who it is there.
const APP: [&str; 3] =
    ["sh", "-c", "test -f /data/first || echo born > /data/first; exec httpd -f -p 3000 -h /data"];

/// A volume of a story; goes with it.
pub struct Volume {
    host: DockerHost,
    name: String,
}

impl Volume {
    fn new(host: &DockerHost, name: &str) -> Self {
        let name = format!("switchback-story-{name}-{}", std::process::id());
        let (client, request) = (
            host.client(),
            VolumeCreateRequest { name: Some(name.clone()), ..VolumeCreateRequest::default() },
        );
        on_a_runtime(async move { client.create_volume(request).await }).unwrap();
        Self { host: host.clone(), name }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        for name in volumes(&self.host) {
            // With those that were restored of it.
            if name.contains(&self.name) {
                let client = self.host.client();
                on_a_runtime(async move {
                    let _used = client.remove_volume(&name, None::<RemoveVolumeOptions>).await;
                });
            }
        }
    }
}

fn volumes(host: &DockerHost) -> Vec<String> {
    let client = host.client();
    let listed = on_a_runtime(async move { client.list_volumes(None::<ListVolumesOptions>).await });
    listed.unwrap().volumes.unwrap_or_default().into_iter().map(|volume| volume.name).collect()
}

impl Volume {
    /// It, and what was restored of it.
    pub fn all(&self) -> Vec<String> {
        let mut all = volumes(&self.host);
        all.retain(|name| name.contains(&self.name));
        all.sort();
        all
    }
}

/// A daemon whose app has a volume, and the volume.
pub fn with_volume(name: &str, image: &str, more: &str) -> Option<(Volume, Daemon)> {
    let mut daemon = of_image(image, "")?;
    let volume = Volume::new(daemon.engine().unwrap(), name);
    let plan = plan_with(&volume, more);
    configure(&daemon, image, &plan);
    let text = fs::read_to_string(daemon.config()).unwrap();
    let args = text.lines().find(|line| line.starts_with("args =")).unwrap().to_owned();
    let text = text.replace(&args, &format!("args = {APP:?}"));
    daemon.configure(&text.replace("path = \"/\"", "path = \"/first\""));
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.until("its data", || file(&daemon, "/first") == "born");
    // The daemon goes first, and what has the volume with it.
    Some((volume, daemon))
}

fn plan_with(volume: &Volume, more: &str) -> String {
    format!(
        "volumes = [\"{}:/data\"]\nbackup = {{ volumes = [\"/data\"], \
         command = [\"sh\", \"-c\", \"echo dumped\"] }}\n{more}",
        volume.name
    )
}

pub fn file(daemon: &Daemon, path: &str) -> String {
    let answer = daemon.get(path).ok().filter(|answer| answer.status == 200);
    answer.map(|answer| answer.body.trim().to_owned()).unwrap_or_default()
}

/// Writes a file where the app has its data.
pub fn put(daemon: &Daemon, name: &str, text: &str) {
    let id = daemon.service()["stable"]["instances"][0]["id"].as_str().unwrap().to_owned();
    let client = daemon.engine().unwrap().client();
    let command = format!("echo {text} > /data/{name}");
    on_a_runtime(async move {
        let config = bollard::models::ExecConfig {
            cmd: Some(vec!["sh".to_owned(), "-c".to_owned(), command]),
            attach_stdout: Some(true),
            ..bollard::models::ExecConfig::default()
        };
        let exec = client.create_exec(&id, config).await.unwrap().id;
        let started = client.start_exec(&exec, None).await.unwrap();
        if let bollard::exec::StartExecResults::Attached { mut output, .. } = started {
            while futures_util::StreamExt::next(&mut output).await.is_some() {}
        }
    });
    daemon.until("it is written", || file(daemon, &format!("/{name}")) == text);
}

pub fn create(daemon: &Daemon, note: &str) -> String {
    let said = daemon.cli(&["checkpoint", "create", "web", "--note", note]);
    assert_eq!(said.code, 0, "{said:?}");
    said.stdout.trim().to_owned()
}

fn listed(daemon: &Daemon) -> Vec<Value> {
    let said = daemon.cli(&["checkpoint", "ls", "web", "-o", "json"]);
    assert_eq!(said.code, 0, "{said:?}");
    said.last().as_array().unwrap().clone()
}

fn shelf(daemon: &Daemon) -> PathBuf {
    daemon.state().join("checkpoints")
}

pub fn image(host: &DockerHost) -> String {
    import(host, &[])
}

pub fn engine() -> Option<DockerHost> {
    crate::support::engine::engine()
}

/// Gives the service hooks that write down that they ran, and reads what they wrote.
fn hooks(daemon: &Daemon) -> impl Fn() -> String {
    let ran = daemon.home().join("ran");
    let line = format!("echo $SWITCHBACK_HOOK $SWITCHBACK_REVISION >> {}", ran.display());
    let command = format!("command = [\"sh\", \"-c\", {line:?}]");
    let tables = ["before_deploy", "after_promote", "on_rollback"]
        .map(|moment| format!("\n[service.web.{moment}]\n{command}"));
    let text = fs::read_to_string(daemon.config()).unwrap();
    daemon.configure(&format!("{text}{}", tables.concat()));
    let said = daemon.cli(&["reload"]);
    assert_eq!(said.code, 0, "{said:?}");
    move || fs::read_to_string(&ran).unwrap_or_default()
}

/// The configuration as it was before them.
fn without_hooks(daemon: &Daemon) -> String {
    let text = fs::read_to_string(daemon.config()).unwrap();
    text.split_once("\n[service.web.before_deploy]").unwrap().0.to_owned()
}

#[test]
fn a_checkpoint_is_kept_checked_and_brought_back_with_its_data() {
    let Some(host) = engine() else { return };
    // An image of its own, that can be taken from the engine.
    let registry = Registry::start();
    registry.put("web", "v1", &root_with(&[("www/page.html", "kept")]), &APP);
    let name = registry.name("web");
    let Some((volume, daemon)) = with_volume("kept", &format!("{name}:v1"), "") else { return };
    put(&daemon, "orders", "ten");
    let id = create(&daemon, "the last day it worked");
    let [one] = &listed(&daemon)[..] else { panic!("{:?}", listed(&daemon)) };
    assert_eq!(one["head"]["note"], "the last day it worked");
    assert_eq!((&one["head"]["automatic"], &one["head"]["revision"]), (&false.into(), &1.into()));
    let said = daemon.cli(&["checkpoint", "ls"]);
    assert!(
        said.stdout.contains(&id) && said.stdout.contains("the last day it worked"),
        "{said:?}"
    );

    let said = daemon.cli(&["checkpoint", "verify", &id]);
    assert_eq!(said.code, 0, "{said:?}");
    for part in ["configuration.toml", "revision.json", "image.tar", "volume-0.tar", "dump"] {
        assert!(said.stdout.contains(part), "{said:?}");
    }

    // The day after: other data, another release, and the image of that day is gone.
    put(&daemon, "orders", "none");
    registry.put("web", "v2", &root_with(&[("www/page.html", "new")]), &APP);
    let said = daemon.cli(&["deploy", "web:v2"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("nothing else runs", || daemon.running().len() == 1);
    let old = {
        let client = host.client();
        let name = format!("{name}:v1");
        on_a_runtime(async move { client.inspect_image(&name).await.unwrap().id.unwrap() })
    };
    let client = host.client();
    on_a_runtime({
        let (client, old) = (client.clone(), old.clone());
        async move {
            let options = RemoveImageOptions { force: true, ..RemoveImageOptions::default() };
            client.remove_image(&old, Some(options), None).await.unwrap();
        }
    });

    let before = volume.all();
    let said = daemon.cli(&["checkpoint", "verify", &id, "--restore-test"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("restored on the side, healthy after"), "{said:?}");
    assert_eq!(volume.all(), before, "what was tried out is gone");
    let gone = on_a_runtime({
        let (client, old) = (client.clone(), old.clone());
        async move { client.inspect_image(&old).await.is_err() }
    });
    assert!(gone, "the image that came for a test goes with it");
    assert_eq!(file(&daemon, "/orders"), "none", "what serves was not touched");

    let ran = hooks(&daemon);
    let said = daemon.cli(&["checkpoint", "restore", "web", &id]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("the data of that day", || file(&daemon, "/orders") == "ten");
    let web = daemon.service();
    assert_eq!(web["stable"]["revision"], 3, "{web:#}");
    // Nothing was migrated by it, and that is said; what follows a promotion followed.
    let why = "before_deploy and on_rollback do not run: what a checkpoint has fits together";
    assert!(said.stderr.contains(why) || said.stdout.contains(why), "{said:?}");
    daemon.until("its hook", || ran() == "after_promote 3\n");
    fs::write(daemon.config(), without_hooks(&daemon)).unwrap();
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    assert_eq!(web["stable"]["image"], format!("{name}:v1"));
    let all = listed(&daemon);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[0]["head"]["note"], format!("before {id} was restored"));

    // Nothing was written over: the volume of the configuration still has its own.
    let restored: Vec<String> =
        volume.all().into_iter().filter(|name| !before.contains(name)).collect();
    let [restored] = &restored[..] else { panic!("{restored:?}") };
    assert!(restored.starts_with(&format!("switchback-web-{}", volume.name)), "{restored}");
    let said = daemon.cli(&["rollback", "web"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("the data of today", || file(&daemon, "/orders") == "none");
    let said = daemon.cli(&["rollback", "web", "--to", "3"]);
    assert_eq!(said.code, 0, "{said:?}");

    // What comes next goes on with the restored data.
    let said = daemon.cli(&["deploy", "web:v2"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("the data of that day", || file(&daemon, "/orders") == "ten");

    let said = daemon.cli(&["checkpoint", "rm", &id]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = daemon.cli(&["checkpoint", "verify", &id]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("there is no checkpoint"), "{said:?}");
}

#[test]
fn a_bad_archive_changes_nothing() {
    let Some(host) = engine() else { return };
    let Some((volume, mut daemon)) = with_volume("bad", &image(&host), "") else { return };
    let id = create(&daemon, "");
    let path = shelf(&daemon).join(format!("{id}.tar.zst"));
    let whole = fs::read(&path).unwrap();
    let before = volume.all();
    let refused = |daemon: &Daemon, what: &str, words: &str| {
        for verb in [
            vec!["checkpoint", "restore", "web", &id],
            vec!["checkpoint", "verify", &id, "--restore-test"],
        ] {
            let said = daemon.cli(&verb);
            assert_eq!(said.code, 1, "{what}: {said:?}");
            assert!(said.stderr.contains(words), "{what}: {said:?}");
        }
        assert_eq!(volume.all(), before, "{what}");
        assert_eq!(daemon.service()["stable"]["revision"], 1, "{what}");
    };
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    refused(&daemon, "cut off", "damaged in its part \"image.tar\"");
    let mut flipped = whole.clone();
    let at = flipped.len() / 2;
    flipped[at] ^= 4;
    fs::write(&path, &flipped).unwrap();
    refused(&daemon, "flipped", "damaged in its part \"image.tar\"");
    fs::write(&path, forged(&whole, "../../etc/passwd", 1)).unwrap();
    refused(&daemon, "climbing", "\"../../etc/passwd\"");
    fs::write(&path, forged(&whole, "", 9)).unwrap();
    refused(&daemon, "newer", "has format 9");

    // Of another service.
    fs::write(&path, &whole).unwrap();
    let text = fs::read_to_string(daemon.config()).unwrap();
    let api = "\n[service.api]\nhost = \"api.example.com\"\nendpoints = [\"127.0.0.1:1\"]\n";
    daemon.configure(&(text + api));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let said = daemon.cli(&["checkpoint", "restore", "api", &id]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("is of the service web, not of api"), "{said:?}");
    let said = daemon.cli(&["checkpoint", "verify", path.to_str().unwrap()]);
    assert_eq!(said.code, 0, "{said:?}");

    // A command that fails, and a file that is left of a daemon that died.
    let text = fs::read_to_string(daemon.config()).unwrap();
    daemon.configure(&text.replace("echo dumped", "echo half; echo no database >&2; exit 3"));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let said = daemon.cli(&["checkpoint", "create", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("sh exited with code 3: no database"), "{said:?}");
    assert_eq!(names(&shelf(&daemon)), [format!("{id}.tar.zst")]);
    let left = shelf(&daemon).join("web-20260101-000000-r1.tar.zst.partial");
    fs::write(&left, b"half").unwrap();
    let said = daemon.cli(&["clean"]);
    assert!(said.stdout.contains("never finished") && left.exists(), "{said:?}");
    assert_eq!(daemon.cli(&["clean", "--yes"]).code, 0);
    assert!(!left.exists());
    daemon.terminate();
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// An archive with the head of another one, of another format, and with one more entry.
fn forged(whole: &[u8], name: &str, format: u32) -> Vec<u8> {
    let plain = zstd::decode_all(whole).unwrap();
    let mut archive = tar::Archive::new(&plain[..]);
    let mut made = tar::Builder::new(Vec::new());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().into_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        if path == Path::new("checkpoint.json") {
            let mut head: Value = serde_json::from_slice(&bytes).unwrap();
            head["format"] = format.into();
            bytes = serde_json::to_vec(&head).unwrap();
        }
        append(&mut made, path.to_str().unwrap(), &bytes);
        if path == Path::new("checkpoint.json") && !name.is_empty() {
            append(&mut made, name, b"x");
        }
    }
    zstd::encode_all(&made.into_inner().unwrap()[..], 1).unwrap()
}

fn append(made: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    made.append(&header, bytes).unwrap();
}

#[test]
fn automatic_checkpoints_come_before_changes_and_go_by_themselves() {
    let Some(host) = engine() else { return };
    let (image, more) = (image(&host), "checkpoint = \"auto\"\n");
    let Some((_volume, daemon)) = with_volume("auto", &image, more) else { return };
    let text = fs::read_to_string(daemon.config()).unwrap();
    daemon.configure(&text.replace("backup = {", "backup = { keep = 2,"));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let kept = create(&daemon, "by hand");
    for _ in 0..2 {
        let said = daemon.cli(&["deploy", "web"]);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains("archiving the image"), "{said:?}");
    }
    let said = daemon.cli(&["rollback", "web", "--to", "1"]);
    assert_eq!(said.code, 0, "{said:?}");
    let all = listed(&daemon);
    let notes: Vec<&str> =
        all.iter().map(|one| one["head"]["note"].as_str().unwrap_or("")).collect();
    let deploy = format!("before the deploy of {image}");
    assert_eq!(notes, ["before the rollback to revision 1", &deploy, "by hand"]);
    assert_eq!(all[2]["id"], kept);
    let said = daemon.cli(&["deploy", "web", "--no-checkpoint"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(listed(&daemon).len(), 3);

    // One that cannot be made holds a deploy up, and a rollback not.
    let text = fs::read_to_string(daemon.config()).unwrap();
    daemon.configure(&text.replace("echo dumped", "exit 9"));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let said = daemon.cli(&["deploy", "web"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("no checkpoint could be archived before the deploy"), "{said:?}");
    assert!(said.stderr.contains("--no-checkpoint deploys without"), "{said:?}");
    let said = daemon.cli(&["rollback", "web", "--to", "1"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(daemon.service()["stable"]["revision"], 1);
}

#[test]
fn a_disk_that_is_too_small_is_found_out_and_nothing_half_written_stays() {
    let Some(host) = engine() else { return };
    if !rustix::process::geteuid().is_root() {
        skipped("a small disk can be mounted by root only");
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let mount = |verb: &str, words: &[&str]| {
        let run = std::process::Command::new(verb).args(words).arg(disk.path()).status();
        run.is_ok_and(|status| status.success())
    };
    if !mount("mount", &["-t", "tmpfs", "-o", "size=6m", "tmpfs"]) {
        skipped("a small disk cannot be mounted here");
        return;
    }
    let Some((_volume, daemon)) = with_volume("small", &image(&host), "") else { return };
    let text = fs::read_to_string(daemon.config()).unwrap();
    let moved = format!("[state]\ncheckpoints = {:?}\n", disk.path());
    // More than fits comes from where nobody knows the length before.
    let noise = "dd if=/dev/urandom bs=1M count=20";
    daemon.configure(&text.replace("[state]\n", &moved).replace("echo dumped", noise));
    let mut daemon = daemon;
    daemon.terminate();
    daemon.start();
    daemon.wait("stable again", |web| web["stable"]["instances"][0]["healthy"] == true);
    let said = daemon.cli(&["checkpoint", "create", "web"]);
    let left = names(disk.path());
    // And a disk on which not even the image has room.
    fs::write(disk.path().join("filler"), vec![7; 5 << 20]).unwrap();
    let before = daemon.cli(&["checkpoint", "create", "web"]);
    drop(daemon);
    assert!(mount("umount", &[]), "the small disk is in use");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("the disk is full; nothing is left of it"), "{said:?}");
    assert_eq!(left, [""; 0], "nothing half-written stays");
    assert_eq!(before.code, 1, "{before:?}");
    assert!(before.stderr.contains("not enough room in"), "{before:?}");
    assert!(before.stderr.contains("MB are free"), "{before:?}");
}

#[test]
fn clean_shows_first_and_frees_only_what_is_ours() {
    let registry = Registry::start();
    let name = registry.name("web");
    for tag in ["v1", "v2", "v3"] {
        registry.put("web", tag, &root_with(&[("www/page.html", tag)]), &APP);
    }
    let Some((volume, mut daemon)) = with_volume("clean", &format!("{name}:v1"), "") else {
        return;
    };
    let host = daemon.engine().unwrap().clone();
    let foreign = Volume::new(&host, "foreign");
    let id = create(&daemon, "");
    let said = daemon.cli(&["checkpoint", "restore", "web", &id]);
    assert_eq!(said.code, 0, "{said:?}");
    let restored = volumes(&host);
    let restored = restored
        .iter()
        .find(|name| name.starts_with("switchback-web-") && name.contains(&volume.name))
        .unwrap()
        .clone();
    // As if there had always been room for two revisions only.
    let said = daemon.cli(&["rollback", "web", "--to", "1"]);
    assert_eq!(said.code, 0, "{said:?}");
    let text = fs::read_to_string(daemon.config()).unwrap();
    daemon.configure(&text.replace("[service.web]\n", "[service.web]\nkeep_revisions = 2\n"));
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    for tag in ["v2", "v3"] {
        let said = daemon.cli(&["deploy", &format!("web:{tag}")]);
        assert_eq!(said.code, 0, "{said:?}");
    }
    daemon.until("the former revisions have stopped", || daemon.running().len() == 1);

    let said = daemon.cli(&["clean"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains(&restored), "{said:?}");
    assert!(said.stderr.contains("nothing was done: --yes frees it"), "{said:?}");
    assert!(volumes(&host).contains(&restored));
    let said = daemon.cli(&["clean", "--yes"]);
    assert_eq!(said.code, 0, "{said:?}");
    let left = volumes(&host);
    assert!(!left.contains(&restored), "{said:?}");
    assert!(left.contains(&volume.name) && left.contains(&foreign.name));
    let said = daemon.cli(&["clean"]);
    assert_eq!((said.code, said.stderr.trim()), (0, "nothing to free"), "{said:?}");
    assert_eq!(file(&daemon, "/first"), "born");
    daemon.terminate();
}
