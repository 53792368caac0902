//! Containers that somebody else runs make services by their labels.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptions};
use switchback::demo::image;
use switchback::runtime::docker::DockerRuntime;

use crate::support::daemon::{Daemon, PROGRAM, Runs};
use crate::support::engine::{DockerHost, on_a_runtime, remove_images};
use crate::support::http::get;
use crate::support::load::Load;

/// Containers of a story; gone when dropped.
struct Others {
    host: DockerHost,
    mark: String,
    ids: Vec<String>,
}

impl Others {
    /// Imports the sample app once more: the same files are another image.
    fn image(&self, tag: &str) -> String {
        let name = format!("switchback-labels:{}-{tag}", self.mark);
        let root = image::root_file_system(std::path::Path::new(PROGRAM)).unwrap();
        let runtime = DockerRuntime::new(&self.host.url, "story").unwrap();
        let made = name.clone();
        on_a_runtime(async move { runtime.import(&made, root, image::PROGRAM).await.unwrap() });
        name
    }

    /// Runs a container with these labels beside the usual ones.
    fn run(&mut self, image: &str, env: &[&str], labels: &[(&str, &str)]) -> usize {
        let mut all = HashMap::from(
            [
                ("host", "*"),
                ("service", "web"),
                ("port", "3000"),
                ("health", "/up"),
                ("steps", "50% 100%"),
                ("bake", "400ms"),
                ("bake_max", "2s"),
                ("on_inconclusive", "advance"),
            ]
            .map(|(name, value)| (format!("switchback.{name}"), value.to_owned())),
        );
        all.insert("story".to_owned(), self.mark.clone());
        for (name, value) in labels {
            all.insert((*name).to_owned(), (*value).to_owned());
        }
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(["sample-app", "--port", "3000"].map(str::to_owned).to_vec()),
            env: Some(env.iter().map(|text| (*text).to_owned()).collect()),
            labels: Some(all),
            ..Default::default()
        };
        let docker = self.host.client();
        let id = on_a_runtime(async move {
            let options = None::<CreateContainerOptions>;
            let made = docker.create_container(options, body).await.unwrap();
            docker.start_container(&made.id, None).await.unwrap();
            made.id
        });
        self.ids.push(id);
        self.ids.len() - 1
    }

    fn remove(&self, nth: usize) {
        let (docker, id) = (self.host.client(), self.ids[nth].clone());
        on_a_runtime(async move { remove(&docker, &id).await });
    }

    fn restart(&self, nth: usize) {
        let (docker, id) = (self.host.client(), self.ids[nth].clone());
        on_a_runtime(async move {
            docker.stop_container(&id, None).await.unwrap();
            docker.start_container(&id, None).await.unwrap();
        });
    }
}

async fn remove(docker: &Docker, id: &str) {
    let options = RemoveContainerOptions { force: true, ..Default::default() };
    let _ = docker.remove_container(id, Some(options)).await;
}

impl Drop for Others {
    fn drop(&mut self) {
        let (docker, ids) = (self.host.client(), self.ids.clone());
        on_a_runtime(async move {
            for id in &ids {
                remove(&docker, id).await;
            }
        });
        remove_images(&self.host, &format!("switchback-labels:{}-", self.mark));
    }
}

#[test]
fn containers_of_others_are_served_and_released() {
    let Some(mut daemon) = Daemon::configured(Runs::Containers, "") else { return };
    let host = daemon.engine().unwrap().clone();
    let mark = daemon.home().file_name().unwrap().to_string_lossy().to_lowercase();
    let mark: String = mark.chars().filter(char::is_ascii_alphanumeric).collect();
    let mut others = Others { host, mark, ids: Vec::new() };
    let file = daemon.file("");
    let file = &file[..file.find("[service.web]").unwrap()];
    daemon.configure(&file.replace("[runtime]\n", "[runtime]\nlabels = \"on\"\n"));
    daemon.start();
    let name = |http| {
        let answer = get(http, "/", &[]).ok()?;
        let named = answer.field("x-sample-name").unwrap_or("none").to_owned();
        (answer.status == 200).then_some(named)
    };
    let http = daemon.http;
    assert_eq!(get(http, "/", &[]).unwrap().status, 404);

    // A project goes up.
    let one = others.image("one");
    let first = others.run(&one, &["SAMPLE_NAME=one"], &[("switchback.helth", "/")]);
    daemon.until("the first", || name(http).as_deref() == Some("one"));
    let typo = "did you mean switchback.health?";
    daemon.until("the unknown label", || daemon.status()["notes"].to_string().contains(typo));
    daemon.wait("promoted", |web| web["phase"] == "promoted");

    // A new image under another project: a canary like any other.
    let load = Load::begin(http, 100);
    let two = others.image("two");
    others.run(&two, &["SAMPLE_NAME=two"], &[]);
    daemon.wait("the canary", |web| web["canary"].is_object());
    daemon.wait("promoted", |web| {
        web["phase"] == "promoted" && web["stable"]["revision"].as_u64() == Some(2)
    });
    daemon.until("the second", || name(http).as_deref() == Some("two"));
    others.remove(first);

    // A bad one is taken back, and not tried again.
    let bad = others.image("bad");
    others.run(&bad, &["SAMPLE_NAME=bad", "SAMPLE_FAULT=errors:0.9"], &[]);
    let gone = daemon.wait("back", |web| web["phase"] == "rolled_back");
    let rollout = gone["rollout"].clone();
    daemon.until("the second alone", || (0..10).all(|_| name(http).as_deref() == Some("two")));
    assert_eq!(daemon.service()["rollout"], rollout, "once");
    let _ = load.end();

    // The engine gives the container of the second another life, perhaps elsewhere.
    others.restart(1);
    daemon.until("served again", || name(http).as_deref() == Some("two"));

    // What is known survives a restart of the daemon.
    daemon.terminate();
    daemon.start();
    daemon.until("served at once", || name(http).as_deref() == Some("two"));
    let revision = daemon.wait("known", |web| web["stable"].is_object());
    assert!(revision["stable"]["revision"].as_u64() >= Some(2), "{revision}");
    others.remove(1);
    others.remove(2);
    daemon
        .until("nothing is left", || get(http, "/", &[]).is_ok_and(|answer| answer.status == 404));
}
