//! From source: real builds by a real engine, from a real repository.

use std::fs;

use crate::kept_images::{configure, of_image};
use crate::support::daemon::Daemon;
use crate::support::engine::remove_images;
use crate::support::repository::{DOCKERFILE, Repository};

/// A repository with two apps side by side.
fn two_apps() -> Option<Repository> {
    let repository = Repository::begin()?;
    for app in ["front", "back"] {
        repository.app(app, &[("index.html", "well"), ("page.html", "one")]);
    }
    repository.put("README", "two apps");
    repository.commit("first");
    Some(repository)
}

fn page(daemon: &Daemon, host: &str) -> String {
    let answer = crate::support::http::get(daemon.http, "/page.html", &[("host", host)]);
    answer.ok().filter(|a| a.status == 200).map(|a| a.body).unwrap_or_default()
}

/// A daemon for both apps, on which nothing runs yet.
fn daemon(name: &str) -> Option<Daemon> {
    let mut daemon = of_image("none", "")?;
    let image = format!("switchback-built-{name}-{}", std::process::id());
    let plan = "paths = [\"front/**\"]\nbuild = { context = \"front\" }\n";
    configure(&daemon, &format!("{image}/front"), plan);
    let text = fs::read_to_string(daemon.config()).unwrap();
    let (head, front) = text.split_once("[service.web]").unwrap();
    let front = front.replace("host = \"*\"", "host = \"front.example.com\"");
    let front = front.lines().filter(|line| !line.starts_with("args =")).collect::<Vec<_>>();
    let front = front.join("\n");
    let back = front.replace("front", "back");
    daemon.configure(&format!("{head}[service.web]{front}\n[service.back]{back}"));
    daemon.start();
    Some(daemon)
}

/// Removes what was built.
fn remove(daemon: &Daemon, name: &str) {
    let ours = format!("switchback-built-{name}-{}", std::process::id());
    remove_images(daemon.engine().unwrap(), &ours);
}

#[test]
fn a_branch_is_built_and_only_what_changed_is_deployed() {
    let Some(repository) = two_apps() else { return };
    let Some(daemon) = daemon("git") else { return };
    let first = repository.git(&["rev-parse", "HEAD"]);
    let (url, short) = (repository.text(), first[..12].to_owned());

    let said = daemon.cli(&["deploy", "--git", &url, "--ref", "main"]);
    assert_eq!(said.code, 0, "{said:?}");
    for service in ["web", "back"] {
        let told = format!("{service}: deployed: it is not known from which commit");
        assert!(said.stderr.contains(&told), "{said:?}");
    }
    assert!(said.stderr.contains(" : FROM scratch"), "{said:?}");
    daemon.until("both pages", || {
        ["front.example.com", "back.example.com"].iter().all(|host| page(&daemon, host) == "one")
    });
    let web = daemon.service();
    let image = web["stable"]["image"].as_str().unwrap();
    assert!(image.ends_with(&format!("/front:{short}")), "{image}");
    let origin = &web["stable"]["origin"];
    assert_eq!((&origin["commit"], &origin["reference"]), (&first.clone().into(), &"main".into()));
    assert_eq!(origin["dirty"], false);

    repository.put("front/www/page.html", "two");
    repository.commit("second");
    let said = daemon.cli(&["deploy", "--git", &url, "--ref", "main", "--dry-run"]);
    assert_eq!(said.code, 0, "{said:?}");
    let why = format!("web: 1 file changed since {short}: front/www/page.html");
    let why_not = format!("back: nothing changed in back/** since {short}; not deployed");
    assert!(said.stderr.contains(&why) && said.stderr.contains(&why_not), "{said:?}");
    assert_eq!(daemon.service()["stable"]["revision"], 1);
    let said = daemon.cli(&["deploy", "--git", &url, "--ref", "main"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("from the cache"), "the layers before are there: {said:?}");
    daemon.until("the new page", || page(&daemon, "front.example.com") == "two");
    assert_eq!(page(&daemon, "back.example.com"), "one");
    let back = daemon.read("/api/v1/services/back").unwrap();
    assert!(back.contains("\"revision\":1"), "{back}");

    // A tag, a commit, and what does not exist.
    repository.git(&["tag", "v1", &first]);
    let said = daemon.cli(&["deploy", "web", "--git", &url, "--ref", "v1"]);
    assert_eq!(said.code, 0, "{said:?}");
    daemon.until("the old page", || page(&daemon, "front.example.com") == "one");
    let said = daemon.cli(&["deploy", "web", "--git", &url, "--ref", &first]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("nothing changed in front/**"), "{said:?}");
    // What is in no commit is not built, and whoever forgot to commit is told.
    assert!(!said.stderr.contains("not committed"), "{said:?}");
    repository.put("front/www/page.html", "forgotten");
    let said = daemon.cli(&["deploy", "web", "--git", &url, "--dry-run"]);
    assert!(
        said.stderr.contains("has changes that are not committed; they are not built"),
        "{said:?}"
    );
    let said = daemon.cli(&["deploy", "web", "--git", &url, "--ref", "nowhere"]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("there is no branch, tag or commit \"nowhere\""), "{said:?}");
    assert!(said.stderr.contains("its branches: main"), "{said:?}");
    remove(&daemon, "git");
}

#[test]
fn a_directory_is_built_as_it_is_and_a_failing_build_shows_its_last_lines() {
    let Some(repository) = two_apps() else { return };
    let Some(daemon) = daemon("tree") else { return };
    let first = repository.git(&["rev-parse", "HEAD"]);
    repository.put("front/www/page.html", "not committed");
    let said = daemon.cli(&["deploy", "web", "--build", &repository.text()]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stderr.contains("with changes that are not committed"), "{said:?}");
    daemon.until("its page", || page(&daemon, "front.example.com") == "not committed");
    let web = daemon.service();
    assert_eq!(web["stable"]["origin"]["dirty"], true);
    let image = web["stable"]["image"].as_str().unwrap();
    assert!(image.contains(&format!("/front:{}-dirty-", &first[..12])), "{image}");

    let broken = DOCKERFILE.replace(
        "COPY www /www\n",
        "RUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo compiling; echo no such symbol; exit 4\"]\n",
    );
    repository.put("front/Dockerfile", &broken);
    let said = daemon.cli(&["deploy", "web", "--build", &repository.text()]);
    assert_eq!(said.code, 1, "{said:?}");
    let (_, failure) = said.stderr.split_once("error: ").expect("a failure");
    assert!(failure.contains("the build failed: "), "{said:?}");
    let lines: Vec<&str> = failure.lines().map(str::trim).collect();
    assert!(lines.contains(&"no such symbol"), "its last lines, each as one: {said:?}");
    assert!(failure.contains("4"), "{said:?}");
    assert_eq!(page(&daemon, "front.example.com"), "not committed");

    fs::remove_file(repository.path().join("front/Dockerfile")).unwrap();
    let said = daemon.cli(&["deploy", "web", "--build", &repository.text()]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("there is no Dockerfile in"), "{said:?}");
    let said = daemon.cli(&["deploy", "web:v1", "--build", "."]);
    assert_eq!(said.code, 2, "{said:?}");
    remove(&daemon, "tree");
}
