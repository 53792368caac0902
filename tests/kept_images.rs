//! Images: which one a tag meant, which of them stay, and what comes of one that somebody removed.

use bollard::query_parameters::{ListImagesOptions, PruneImagesOptions, RemoveImageOptions};
use serde_json::Value;

use crate::support::daemon::{Daemon, Runs};
use crate::support::engine::{on_a_runtime, root_with};
use crate::support::registry::Registry;

/// One step, which is over at once; nobody visits here.
const QUICK: &str = "steps = \"100%\"\nbake = \"100ms\"\nbake_max = \"300ms\"\n\
    on_inconclusive = \"advance\"\nkeep_warm = \"0s\"\n\
    probe = { path = \"/\", interval = \"200ms\", timeout = \"2s\", rise = 1 }\n";

const HTTPD: [&str; 6] = ["httpd", "-f", "-p", "3000", "-h", "/www"];

/// A daemon whose service is this image.
pub fn of_image(image: &str, plan: &str) -> Option<Daemon> {
    let daemon = Daemon::configured(Runs::Containers, QUICK)?;
    configure(&daemon, image, plan);
    Some(daemon)
}

/// Its configuration, anew.
pub fn configure(daemon: &Daemon, image: &str, plan: &str) {
    let text = daemon.file(&format!("{QUICK}{plan}"));
    let lines = text.lines().filter(|line| !line.starts_with("args ="));
    let lines = lines.map(|line| match line.starts_with("image =") {
        true => format!("image = {image:?}\nargs = {HTTPD:?}"),
        false => line.to_owned(),
    });
    // Its shell does not end when it is asked to.
    let text = lines.collect::<Vec<_>>().join("\n");
    daemon.configure(&text.replace("stop_grace = \"5s\"", "stop_grace = \"1s\""));
}

fn put(registry: &Registry, tag: &str, page: &str) -> String {
    registry.put("web", tag, &root_with(&[("www/page.html", page)]), &HTTPD)
}

fn page(daemon: &Daemon) -> String {
    daemon.get("/page.html").map(|answer| answer.body).unwrap_or_default()
}

fn events(rollout: &Value) -> String {
    let events = rollout["events"].as_array().cloned().unwrap_or_default();
    let messages: Vec<String> =
        events.iter().map(|event| event["message"].as_str().unwrap_or("").to_owned()).collect();
    messages.join("\n")
}

/// The tags of ours that a daemon's images have.
fn tags(daemon: &Daemon, image: &str) -> Vec<String> {
    let client = daemon.engine().unwrap().client();
    let listed =
        on_a_runtime(async move { client.list_images(Some(ListImagesOptions::default())).await });
    let mine = |tags: &Vec<String>| tags.iter().any(|tag| tag.starts_with(image));
    let images = listed.unwrap().into_iter().map(|image| image.repo_tags).filter(mine);
    let mut tags: Vec<String> = images
        .flatten()
        .filter_map(|tag| Some(tag.strip_prefix("switchback/web:")?.split('-').next()?.to_owned()))
        .collect();
    tags.sort();
    tags
}

#[test]
fn a_tag_means_what_it_meant_when_it_was_deployed() {
    let registry = Registry::start();
    let first = put(&registry, "v1", "one");
    let name = registry.name("web");
    let Some(mut daemon) = of_image(&format!("{name}:v1"), "") else { return };
    daemon.start();
    let web = daemon.wait("the first revision", |web| web["phase"] == "promoted");
    assert_eq!(web["stable"]["digest"], first, "{web:#}");
    daemon.until("its page", || page(&daemon) == "one");

    // The tag moves in the registry; here it has not.
    let second = put(&registry, "v1", "two");
    assert_ne!(first, second);
    let said = daemon.cli(&["deploy", "web:v1"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("the very image of revision 1"), "{said:?}");
    assert!(!said.stderr.contains("pulling"), "{said:?}");
    let told = events(&daemon.rollout(2));
    assert!(told.contains("revision 2 runs the same image as revision 1"), "{told}");
    assert_eq!(page(&daemon), "one");

    // Asked for, the registry says that it has moved.
    configure(&daemon, &format!("{name}:v1"), "pull = \"always\"\n");
    assert_eq!(daemon.cli(&["reload"]).code, 0);
    let said = daemon.cli(&["deploy", "web:v1", "-o", "json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let pulls = said.lines().into_iter().find(|line| line["kind"] == "progress").unwrap();
    assert_eq!(pulls["progress"]["what"], format!("pulling {name}:v1"));
    let told = events(&daemon.rollout(3));
    let moved = format!("{name}:v1 is not the image of revision 2 any more");
    assert!(told.contains(&moved), "{told}");
    assert_eq!(daemon.service()["stable"]["digest"], second);
    daemon.until("the new page", || page(&daemon) == "two");

    // Who removes what has no name leaves what can be returned to.
    let client = daemon.engine().unwrap().client();
    on_a_runtime(async move { client.prune_images(None::<PruneImagesOptions>).await }).unwrap();
    let said = daemon.cli(&["rollback", "web", "--to", "1"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("the page of before", || page(&daemon) == "one");

    // Who removes more than that makes it be pulled again, as what it was.
    let remove = |revision: &str| {
        daemon.until("nothing else runs", || daemon.running().len() == 1);
        let client = daemon.engine().unwrap().client();
        let images = on_a_runtime({
            let client = client.clone();
            async move { client.list_images(Some(ListImagesOptions::default())).await.unwrap() }
        });
        let ours = format!("switchback/web:r{revision}-");
        let found = images.into_iter().find(|image| {
            let tags = &image.repo_tags;
            tags.iter().any(|tag| tag.starts_with(&ours))
                && image.repo_digests.iter().any(|digest| digest.starts_with(&name))
        });
        on_a_runtime(async move {
            let options = RemoveImageOptions { force: true, ..RemoveImageOptions::default() };
            client.remove_image(&found.unwrap().id, Some(options), None).await.unwrap();
        });
    };
    remove("3");
    let said = daemon.cli(&["rollback", "web", "--to", "3"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("the page of after", || page(&daemon) == "two");

    // And where that is not possible, it is said.
    remove("1");
    registry.clear();
    let said = daemon.cli(&["rollback", "web", "--to", "1"]);
    assert_ne!(said.code, 0, "{said:?}");
    let told = format!("{}{}", said.stdout, said.stderr);
    assert!(told.contains("is not on this engine any more"), "{said:?}");
    assert!(told.contains("docker image prune -a"), "{said:?}");
    assert_eq!(page(&daemon), "two");

    let said = daemon.cli(&["deploy", "web:v9"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("could not be pulled"), "{said:?}");
}

#[test]
fn the_last_revisions_stay_with_their_images() {
    let registry = Registry::start();
    let name = registry.name("web");
    for tag in ["v1", "v2", "v3"] {
        put(&registry, tag, tag);
    }
    let Some(mut daemon) = of_image(&format!("{name}:v1"), "keep_revisions = 2\n") else { return };
    daemon.start();
    daemon.wait("the first revision", |web| web["phase"] == "promoted");
    daemon.until("a tag", || tags(&daemon, &name) == ["r1"]);
    for tag in ["v2", "v3"] {
        let said = daemon.cli(&["deploy", &format!("web:{tag}")]);
        assert_eq!(said.code, 0, "{said:?}");
    }
    daemon.until("two of three", || tags(&daemon, &name) == ["r2", "r3"]);
    let said = daemon.cli(&["rollback", "web", "--to", "1"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("revision 1 of web is not kept; kept are: 2, 3"), "{said:?}");
    let said = daemon.cli(&["rollback", "web", "--to", "2"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("its page", || page(&daemon) == "v2");
}
