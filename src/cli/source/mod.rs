//! `switchback deploy --build DIR` and `--git URL --ref REF`: from source to a rollout.
//!
//! The source is looked at here, where the person is who may read it, by the `git` of this machine with
//! that person's keys; the daemon gets a tar and builds it. Of services that share a repository only
//! those are deployed whose inputs changed since the commit that serves.

mod context;
mod git;

use std::path::PathBuf;

use futures_util::TryStreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio_util::io::ReaderStream;

use self::context::Context;
use self::git::Tree;
use super::client::Client;
use super::console::{Console, Line, Look};
use super::deploy::{self, Options};
use super::exit::Exit;
use super::figures;
use super::progress::Bar;
use super::trouble::Trouble;
use crate::controller::archivist::{BuildPlan, BuiltImage};
use crate::model::revision::{COMMIT_SHOWN, Origin};

/// Changed files that are named.
const NAMED: usize = 3;

/// Where the source is.
#[derive(Debug, Clone, Default)]
pub struct Where {
    /// A directory of this machine, as it is.
    pub build: Option<PathBuf>,
    /// A repository.
    pub git: Option<String>,
    /// The branch, tag or commit; what the repository has checked out where nothing is said.
    pub reference: Option<String>,
    /// Deploy also what has not changed.
    pub force: bool,
}

impl Where {
    /// Whether anything is built.
    #[must_use]
    pub fn is_some(&self) -> bool {
        self.build.is_some() || self.git.is_some()
    }
}

/// Builds and deploys services one after the other; all that have `paths` when none is named.
pub async fn run(
    client: &Client,
    console: &mut Console,
    services: Vec<String>,
    from: &Where,
    options: &Options,
) -> Exit {
    let ended = deploy_all(client, console, services, from, options).await;
    super::trouble::ended(console, ended)
}

async fn deploy_all(
    client: &Client,
    console: &mut Console,
    services: Vec<String>,
    from: &Where,
    options: &Options,
) -> Result<Exit, Trouble> {
    let plans = plans(client, services).await?;
    let tree = match (&from.build, &from.git) {
        (Some(dir), _) => git::work_tree(dir)?,
        (None, Some(url)) => git::checked_out(url, from.reference.as_deref())?,
        (None, None) => return Err(Trouble::new(Exit::Usage, "neither --build nor --git")),
    };
    if !options.json {
        console.talk(format!("source: {}", tree.origin));
        if tree.leaves_out {
            console.talk(Line::new().and(Look::Unsure, "! ").plain(
                "its work tree has changes that are not committed; they are not built (--build takes them)",
            ));
        }
    }
    let mut wanted = Vec::new();
    for (service, plan) in plans {
        let news = changed(&tree, &plan);
        let line = Line::new().and(Look::Strong, &service).plain(": ");
        match news {
            News::Nothing(since) if !from.force => {
                let sentence = format!(
                    "nothing changed in {} since {since}; not deployed (--force does it)",
                    plan.paths.join(", ")
                );
                said(console, options.json, &service, false, &sentence, line);
            }
            News::Nothing(since) => {
                let sentence = format!("nothing changed since {since}; deployed by force");
                said(console, options.json, &service, true, &sentence, line);
                wanted.push((service, plan));
            }
            News::Some(sentence) => {
                said(console, options.json, &service, true, &sentence, line);
                wanted.push((service, plan));
            }
        }
    }
    let count = wanted.len();
    for (at, (service, plan)) in wanted.into_iter().enumerate() {
        if options.dry_run {
            continue;
        }
        let ended = one(client, console, &tree, &service, &plan, options).await?;
        if ended != Exit::Done {
            if at + 1 < count {
                console.talk(format!(
                    "{} not deployed",
                    figures::plural((count - at - 1) as u64, "service")
                ));
            }
            return Ok(ended);
        }
    }
    if options.dry_run {
        console.talk("nothing was done");
    }
    Ok(Exit::Done)
}

fn said(console: &mut Console, json: bool, service: &str, deploys: bool, why: &str, line: Line) {
    if json {
        console.json(&serde_json::json!({
            "kind": "source", "service": service, "deploys": deploys, "why": why,
        }));
    } else {
        console.talk(line.plain(why));
    }
}

async fn plans(
    client: &Client,
    services: Vec<String>,
) -> Result<Vec<(String, BuildPlan)>, Trouble> {
    let mut plans = Vec::new();
    if services.is_empty() {
        for service in client.services().await? {
            // One without an image is built by nobody.
            match client.build_plan(&service.service).await {
                Ok(plan) if !plan.paths.is_empty() => plans.push((service.service, plan)),
                Ok(_) => {}
                Err(trouble) if trouble.status == Some(422) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        if plans.is_empty() {
            let sentence =
                "which service? None has `paths`, by which all that changed could be deployed";
            return Err(Trouble::new(Exit::Usage, sentence));
        }
    }
    for service in services {
        let plan = client.build_plan(&service).await?;
        plans.push((service, plan));
    }
    Ok(plans)
}

/// Whether a service's inputs changed, and what a person is told of it.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// Not since this commit.
    Nothing(String),
    /// They did, or nobody can tell.
    Some(String),
}

fn changed(tree: &Tree, plan: &BuildPlan) -> News {
    if plan.paths.is_empty() {
        return News::Some("deployed whatever changed: it has no `paths`".to_owned());
    }
    let before = plan.origin.as_ref().filter(|origin| !origin.dirty);
    let Some(before) = before.and_then(|origin| origin.commit.as_deref()) else {
        return News::Some(
            "deployed: it is not known from which commit the stable revision is".to_owned(),
        );
    };
    let since = before.get(..COMMIT_SHOWN).unwrap_or(before).to_owned();
    let Some(files) = tree.changed_since(before) else {
        return News::Some(format!(
            "deployed: this repository does not have the commit {since} that serves"
        ));
    };
    let mut set = globset::GlobSetBuilder::new();
    for pattern in &plan.paths {
        if let Ok(glob) = globset::GlobBuilder::new(pattern).literal_separator(true).build() {
            set.add(glob);
        }
    }
    let Ok(set) = set.build() else {
        return News::Some("deployed: its `paths` make no sense".to_owned());
    };
    let hit: Vec<&String> = files.iter().filter(|file| set.is_match(file)).collect();
    if hit.is_empty() {
        return News::Nothing(since);
    }
    let named: Vec<&str> = hit.iter().take(NAMED).map(|file| file.as_str()).collect();
    let more = if hit.len() > NAMED { ", …" } else { "" };
    let count = figures::plural(hit.len() as u64, "file");
    News::Some(format!("{count} changed since {since}: {}{more}", named.join(", ")))
}

async fn one(
    client: &Client,
    console: &mut Console,
    tree: &Tree,
    service: &str,
    plan: &BuildPlan,
    options: &Options,
) -> Result<Exit, Trouble> {
    let context = {
        console.talk(format!("{service}: reading {}", plan.context));
        Context::of(&tree.root, &plan.context, &plan.dockerfile)?
    };
    let tag = tag(&tree.origin, &context.sha256);
    let mut path = format!("/api/v1/services/{service}/build?tag={tag}");
    if let Some(commit) = &tree.origin.commit {
        path.push_str(&format!("&commit={commit}"));
    }
    let built: BuiltImage = {
        let pieces = ReaderStream::new(tokio::fs::File::from_std(context.file)).map_ok(Frame::data);
        let body = BodyExt::boxed(StreamBody::new(sync(pieces)));
        let mut bar = Bar::new(console, options.json);
        client.work_on(&path, "application/x-tar", body, &mut |now| bar.show(&now)).await?
    };
    if !options.json {
        let cached = match built.cached {
            0 => String::new(),
            some => format!(", {} from the cache", figures::plural(u64::from(some), "step")),
        };
        console.talk(format!("{service}: built {}{cached}", built.image));
    }
    let options = Options {
        service: Some(service.to_owned()),
        image: Some(built.image),
        origin: Some(tree.origin.clone()),
        ..options.clone()
    };
    deploy::deploy(client, console, options).await
}

/// A body must be shareable between threads, which a file's stream is not by itself.
fn sync<S, T>(stream: S) -> impl futures_util::Stream<Item = T> + Send + Sync + 'static
where
    S: futures_util::Stream<Item = T> + Send + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(piece) = futures_util::StreamExt::next(&mut stream).await {
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        let piece = receiver.recv().await?;
        Some((piece, receiver))
    })
}

/// The tag of an image: its commit, and what else makes it differ.
fn tag(origin: &Origin, sha256: &str) -> String {
    let short = |text: &str, digits: usize| text.get(..digits).unwrap_or(text).to_owned();
    match &origin.commit {
        Some(commit) if !origin.dirty => short(commit, COMMIT_SHOWN),
        Some(commit) => format!("{}-dirty-{}", short(commit, COMMIT_SHOWN), short(sha256, 8)),
        None => format!("src-{}", short(sha256, COMMIT_SHOWN)),
    }
}

/// What is below a directory, for tests of both halves.
#[cfg(test)]
fn repository(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    put(dir.path(), files);
    for words in [
        &["init", "-q", "-b", "main"][..],
        &["config", "user.email", "a@example.com"],
        &["config", "user.name", "A"],
        &["add", "."],
        &["commit", "-q", "-m", "first"],
    ] {
        git::run(dir.path(), words).expect("git");
    }
    dir
}

#[cfg(test)]
fn put(dir: &std::path::Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(paths: &[&str], origin: &Origin) -> BuildPlan {
        BuildPlan {
            image: "web".to_owned(),
            context: ".".to_owned(),
            dockerfile: "Dockerfile".to_owned(),
            paths: paths.iter().map(ToString::to_string).collect(),
            origin: Some(origin.clone()),
        }
    }

    #[test]
    fn only_what_changed_is_told_to_be_deployed() {
        let dir = repository(&[("backend/a.rs", "1"), ("web/b.js", "1"), ("README", "x")]);
        let first = git::work_tree(dir.path()).expect("a tree").origin;
        assert!(!first.dirty && first.reference.as_deref() == Some("main"), "{first:?}");
        put(dir.path(), &[("backend/deep/c.rs", "2"), ("README", "y")]);
        git::run(dir.path(), &["add", "."]).expect("git");
        git::run(dir.path(), &["commit", "-q", "-m", "second"]).expect("git");
        let tree = git::work_tree(dir.path()).expect("a tree");
        let since = first.commit.clone().expect("a commit")[..12].to_owned();
        let told = format!("1 file changed since {since}: backend/deep/c.rs");
        assert_eq!(changed(&tree, &plan(&["backend/**"], &first)), News::Some(told));
        assert_eq!(changed(&tree, &plan(&["web/**"], &first)), News::Nothing(since));
        // What is not committed counts too.
        put(dir.path(), &[("web/new.js", "2")]);
        let tree = git::work_tree(dir.path()).expect("a tree");
        assert!(tree.origin.dirty);
        assert!(matches!(changed(&tree, &plan(&["web/**"], &first)), News::Some(_)));
        let elsewhere = Origin { commit: Some("1".repeat(40)), ..Origin::default() };
        assert!(matches!(changed(&tree, &plan(&["web/**"], &elsewhere)), News::Some(_)));
    }

    #[test]
    fn tags_are_commits_and_say_when_there_was_more() {
        let commit = Some("0123456789abcdef0123456789abcdef01234567".to_owned());
        let clean = Origin { commit: commit.clone(), ..Origin::default() };
        assert_eq!(tag(&clean, "feedfacefeedface"), "0123456789ab");
        let dirty = Origin { commit, dirty: true, ..Origin::default() };
        assert_eq!(tag(&dirty, "feedfacefeedface"), "0123456789ab-dirty-feedface");
        assert_eq!(tag(&Origin::default(), "feedfacefeedface"), "src-feedfacefeed");
    }
}
