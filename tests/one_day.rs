//! One operator's whole day, on an engine, from the first coffee to the last look.

use std::collections::HashMap;
use std::fs;

use bollard::models::{ContainerCreateBody, HostConfig, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, ListContainersOptions, ListImagesOptions,
    ListNetworksOptions, ListVolumesOptions, RemoveContainerOptions, RemoveImageOptions,
    RemoveVolumeOptions,
};
use futures_util::StreamExt;

use crate::support::daemon::{Daemon, Runs, Said};
use crate::support::engine::{DockerHost, engine, on_a_runtime, root_with};
use crate::support::load::Load;
use crate::support::receiver::Receiver;
use crate::support::repository::Repository;

/// What is on the engine by the name of this day, made by hand or not.
struct Shop {
    host: DockerHost,
    name: String,
}

impl Shop {
    /// As it was run by hand until today: a container on a network of its own, with data in a volume.
    fn run_by_hand(host: &DockerHost) -> Self {
        let this = Self { host: host.clone(), name: format!("one-day-{}", std::process::id()) };
        let (client, name) = (host.client(), this.name.clone());
        let root = root_with(&[("www/page.html", "the shop, made by hand\n")]);
        on_a_runtime(async move {
            let options = CreateImageOptions {
                from_src: Some("-".to_owned()),
                repo: Some(name.clone()),
                tag: Some("by-hand".to_owned()),
                ..CreateImageOptions::default()
            };
            let body = Some(bollard::body_full(root.into()));
            let mut steps = std::pin::pin!(client.create_image(Some(options), body, None));
            while let Some(step) = steps.next().await {
                step.unwrap();
            }
            let volume =
                VolumeCreateRequest { name: Some(name.clone()), ..VolumeCreateRequest::default() };
            client.create_volume(volume).await.unwrap();
            let network =
                NetworkCreateRequest { name: name.clone(), ..NetworkCreateRequest::default() };
            client.create_network(network).await.unwrap();
            let words = ["httpd", "-f", "-p", "3000", "-h", "/www"];
            let body = ContainerCreateBody {
                image: Some(format!("{name}:by-hand")),
                cmd: Some(words.map(str::to_owned).to_vec()),
                env: Some(vec!["DATABASE_PASSWORD=swordfish".to_owned()]),
                labels: Some(HashMap::from([("one-day".to_owned(), name.clone())])),
                host_config: Some(HostConfig {
                    binds: Some(vec![format!("{name}:/www/data")]),
                    network_mode: Some(name.clone()),
                    ..HostConfig::default()
                }),
                ..ContainerCreateBody::default()
            };
            let options = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
            client.create_container(Some(options), body).await.unwrap();
            client.start_container(&name, None).await.unwrap();
        });
        this
    }

    /// `docker rm -f` of the container that was run by hand.
    fn stop_by_hand(&self) {
        let (client, name) = (self.host.client(), self.name.clone());
        on_a_runtime(async move {
            let options = RemoveContainerOptions { force: true, v: true, link: false };
            client.remove_container(&name, Some(options)).await.unwrap();
        });
    }

    /// Everything of this day that is on the engine now.
    fn everything(&self) -> Vec<String> {
        let (client, name) = (self.host.client(), self.name.clone());
        on_a_runtime(async move {
            let mut all = Vec::new();
            let filters = Some([("label".to_owned(), vec![format!("one-day={name}")])].into());
            let options = ListContainersOptions { all: true, filters, ..Default::default() };
            let containers = client.list_containers(Some(options)).await.unwrap();
            all.extend(containers.into_iter().filter_map(|one| one.id).map(|id| format!("c {id}")));
            let volumes = client.list_volumes(None::<ListVolumesOptions>).await.unwrap();
            let volumes = volumes.volumes.unwrap_or_default().into_iter().map(|one| one.name);
            all.extend(volumes.filter(|one| one.contains(&name)).map(|one| format!("v {one}")));
            let networks = client.list_networks(None::<ListNetworksOptions>).await.unwrap();
            let networks = networks.into_iter().filter_map(|one| one.name);
            all.extend(networks.filter(|one| *one == name).map(|one| format!("n {one}")));
            let images = client.list_images(None::<ListImagesOptions>).await.unwrap();
            let tags = images.into_iter().flat_map(|one| one.repo_tags);
            all.extend(tags.filter(|tag| tag.contains(&name)).map(|tag| format!("i {tag}")));
            all
        })
    }

    fn images(&self) -> usize {
        self.everything().iter().filter(|one| one.starts_with("i ")).count()
    }

    /// Takes it all away.
    fn clear(&self) {
        for one in self.everything() {
            let client = self.host.client();
            on_a_runtime(async move {
                let (kind, name) = one.split_once(' ').unwrap();
                let force = RemoveContainerOptions { force: true, v: true, link: false };
                let image = RemoveImageOptions { force: true, ..Default::default() };
                match kind {
                    "c" => drop(client.remove_container(name, Some(force)).await),
                    "v" => drop(client.remove_volume(name, None::<RemoveVolumeOptions>).await),
                    "n" => drop(client.remove_network(name).await),
                    _ => drop(client.remove_image(name, Some(image), None).await),
                }
            });
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.clear();
    }
}

fn well(said: Said) -> Said {
    assert_eq!(said.code, 0, "{said:?}");
    said
}

fn page(daemon: &Daemon, path: &str) -> String {
    let answer = daemon.get(path).ok().filter(|answer| answer.status == 200);
    answer.map(|answer| answer.body.trim().to_owned()).unwrap_or_default()
}

#[test]
fn one_operator_has_a_whole_day_without_a_script() {
    let Some(host) = engine() else { return };
    let Some(repository) = Repository::begin() else { return };
    let shop = Shop::run_by_hand(&host);
    let name = shop.name.clone();
    let chat = Receiver::begin();

    // 9:00. What is written instead of a folder of scripts.
    let Some(mut daemon) = Daemon::configured(Runs::Containers, "") else { return };
    let text = daemon.file(&format!(
        "volumes = [\"{name}:/www/data\"]\n\
         steps = \"5% 50% 100%\"\nbake = \"400ms\"\nbake_max = \"60s\"\nwarm_up = \"0s\"\n\
         on_inconclusive = \"rollback\"\nabort = \"errors > 20%\"\nkeep_revisions = 2\n\
         smoke = [{{ path = \"/page.html\", contains = \"shop\" }}]\n\
         before_deploy = {{ run = \"image\", command = [\"sh\", \"-c\", \
         \"echo schema of revision $SWITCHBACK_REVISION > /www/data/schema; echo migrated\"] }}\n\
         backup = {{ volumes = [\"/www/data\"], command = [\"cat\", \"/www/data/schema\"] }}\n\
         probe = {{ path = \"/page.html\", interval = \"200ms\", timeout = \"5s\", rise = 1 }}\n\
         [notify.chat]\nkind = \"webhook\"\nurl = \"http://{}/\"\n\
         events = [\"started\", \"promoted\", \"rolled_back\"]\n",
        chat.address
    ));
    let own = |line: &&str| !line.starts_with("args =") && !line.starts_with("labels =");
    let lines = text.lines().filter(own).map(|line| match line.starts_with("image =") {
        true => format!("image = \"{name}/shop\""),
        false => line.replace("stop_grace = \"5s\"", "stop_grace = \"1s\""),
    });
    daemon.configure(&lines.collect::<Vec<_>>().join("\n"));
    well(daemon.cli(&["check"]));
    daemon.start();

    // 9:10. What runs already is taken over, and the container that was run by hand can go.
    well(daemon.cli(&["adopt", &name, "--service", "web"]));
    daemon.until("its page", || page(&daemon, "/page.html") == "the shop, made by hand");
    shop.stop_by_hand();
    assert_eq!(page(&daemon, "/page.html"), "the shop, made by hand");
    let visitors = Load::begin(daemon.http, 80);

    // 10:00. The branch is built, migrated, smoked, and carried to everybody.
    repository.app("", &[("index.html", "well"), ("page.html", "the shop, first edition\n")]);
    let first = repository.commit("first edition");
    let said = well(daemon.cli(&["deploy", "web", "--git", &repository.text(), "--ref", "main"]));
    assert!(said.stderr.contains(" : FROM scratch"), "{said:?}");
    daemon.until("the first edition", || page(&daemon, "/page.html") == "the shop, first edition");
    assert_eq!(page(&daemon, "/data/schema"), "schema of revision 2");
    let record = daemon.rollout(2);
    let told = record["events"].to_string();
    assert!(told.contains("before_deploy: done\\n  migrated"), "{record:#}");
    assert_eq!(record["origin"]["commit"], first, "{record:#}");
    daemon.until("the chat knows", || !chat.with("event", "promoted").is_empty());

    // 11:00. A look around.
    let sheet = well(daemon.cli(&["status"])).stdout;
    for part in
        ["web  promoted", "revision 2", "warm   revision 1", "healthy", "last done", "adopt"]
    {
        assert!(sheet.contains(part), "{part:?} in {sheet}");
    }
    let top = well(daemon.cli(&["top"])).stdout;
    assert!(top.contains("web") && top.contains("stable"), "{top}");
    let events = well(daemon.cli(&["events"])).stdout;
    assert!(events.contains("promoted: revision 2"), "{events}");
    let doctor = well(daemon.cli(&["doctor"]));
    assert!(doctor.stderr.contains("nothing would stop a deploy"), "{doctor:?}");

    // 14:00. A release that is healthy, passes its smoke test, and fails every visitor.
    repository.git(&["rm", "-q", "www/index.html"]);
    let broken =
        "#!/bin/sh\nprintf 'Status: 500 Broken\\r\\nContent-Type: text/plain\\r\\n\\r\\nno'\n";
    repository.put_program("www/cgi-bin/index.cgi", broken);
    repository.commit("second edition");
    let said = daemon.cli(&["deploy", "web", "--git", &repository.text(), "--ref", "main"]);
    assert_eq!(said.code, 3, "taken back by the analysis: {said:?}");
    let asked = visitors.asked();
    daemon.until("visitors go on", || visitors.asked() > asked + 20);
    visitors.end_well();
    let web = daemon.service();
    assert_eq!((&web["stable"]["revision"], &web["weights"]["canary"]), (&2.into(), &0.0.into()));
    daemon.until("the chat knows why", || !chat.with("event", "rolled_back").is_empty());
    let message = chat.with("event", "rolled_back").remove(0).json();
    assert_eq!((&message["service"], &message["to"]), (&"web".into(), &3.into()), "{message:#}");
    assert!(message["text"].as_str().unwrap().contains("all traffic is on revision 2"));
    let why = well(daemon.cli(&["explain", "3"])).stdout;
    assert!(why.contains("500") || why.contains("errors") || why.contains("failed"), "{why}");
    assert!(why.contains("shield: "), "{why}");

    // 15:00. No more of that today.
    let until = ["--until", "12h"];
    well(daemon.cli(&["freeze", "web", "--reason", "one was enough", until[0], until[1]]));
    let said = daemon.cli(&["deploy", "web", "--git", &repository.text(), "--ref", "main"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("one was enough"), "{said:?}");

    // 16:00. The day it worked is kept, and whether it can be had back is tried.
    let said = well(daemon.cli(&["checkpoint", "create", "web", "--note", "the day it worked"]));
    let id = said.stdout.trim().to_owned();
    let said = well(daemon.cli(&["checkpoint", "verify", &id, "--restore-test"]));
    assert!(said.stdout.contains("restored on the side, healthy after"), "{said:?}");
    assert!(said.stdout.contains("the smoke tests went well"), "{said:?}");
    let volumes = shop.everything().into_iter().filter(|one| one.starts_with("v "));
    assert_eq!(volumes.count(), 1, "what was tried out is gone");

    // 17:00. The head of sales wants the page of this morning back, in an instant.
    let said = well(daemon.cli(&["rollback", "web"]));
    assert!(said.stdout.contains("revision 1") || said.stderr.contains("revision 1"), "{said:?}");
    daemon.until("the old page", || page(&daemon, "/page.html") == "the shop, made by hand");
    well(daemon.cli(&["unfreeze", "web"]));

    // 18:00. What is left of the day is looked at, and freed.
    let before = shop.images();
    let said = well(daemon.cli(&["clean"]));
    assert_eq!(shop.images(), before, "it only shows: {said:?}");
    well(daemon.cli(&["clean", "--yes"]));
    let said = well(daemon.cli(&["clean"]));
    assert_eq!(said.stderr.trim(), "nothing to free", "{said:?}");
    assert_eq!(page(&daemon, "/data/schema"), "schema of revision 3", "data is left alone");

    // Who did what. No secret stands in any of it.
    let audit = well(daemon.cli(&["audit", "-o", "json"]));
    let verbs: Vec<String> =
        audit.lines().iter().map(|one| one["verb"].as_str().unwrap().to_owned()).collect();
    for verb in ["adopt", "deploy", "rollout", "freeze", "checkpoint", "rollback", "clean"] {
        assert!(verbs.iter().any(|one| one.contains(verb)), "{verb}: {verbs:?}");
    }
    let history = well(daemon.cli(&["history", "web", "-o", "json"])).stdout;
    let logs = well(daemon.cli(&["logs", "web"])).stdout;
    let all = [sheet, events, why, audit.stdout, history, logs, daemon.log()];
    assert!(!all.iter().any(|text| text.contains("swordfish")), "a secret is shown");

    // 19:00. Lights out; nothing of this day stays on the engine.
    daemon.terminate();
    let state = daemon.state();
    assert!(fs::metadata(state.join("checkpoints").join(format!("{id}.tar.zst"))).is_ok());
    drop(daemon);
    shop.clear();
    assert_eq!(shop.everything(), Vec::<String>::new());
}
