//! `switchback checkpoint` and `switchback clean`: what is kept, brought back, and taken away.

use serde_json::{Value, json};

use super::args::keeping::{
    Adopt, Checkpoint, CheckpointVerb, Clean, Create, Ls, Restore, Rm, Verify,
};
use super::client::Client;
use super::console::{Console, Line, Look, columns};
use super::exit::Exit;
use super::figures;
use super::progress::Bar;
use super::trouble::{self, Trouble};
use super::watch::{self, Followed};
use crate::controller::archivist as told;
use crate::controller::status::DeployAccepted;

/// Runs a verb on checkpoints.
pub(super) async fn run(client: &Client, console: &mut Console, args: Checkpoint) -> Exit {
    let ended = match args.verb {
        CheckpointVerb::Create(args) => create(client, console, args).await,
        CheckpointVerb::Ls(args) => list(client, console, args).await,
        CheckpointVerb::Verify(args) => verify(client, console, args).await,
        CheckpointVerb::Restore(args) => restore(client, console, args).await,
        CheckpointVerb::Rm(args) => remove(client, console, args).await,
    };
    trouble::ended(console, ended)
}

async fn create(client: &Client, console: &mut Console, args: Create) -> Result<Exit, Trouble> {
    let json = args.output.is_json();
    let path = format!("/api/v1/services/{}/checkpoints", args.service.0);
    let made: Value = {
        let mut bar = Bar::new(console, json);
        client.work(&path, &json!({ "note": args.note }), &mut |now| bar.show(&now)).await?
    };
    if json {
        console.json(&made);
    } else {
        console.data(made["id"].as_str().unwrap_or_default());
        let bytes = figures::bytes(made["bytes"].as_u64().unwrap_or(0));
        console.talk(format!("{bytes} in {}", made["path"].as_str().unwrap_or_default()));
    }
    Ok(Exit::Done)
}

async fn list(client: &Client, console: &mut Console, args: Ls) -> Result<Exit, Trouble> {
    let listed =
        client.checkpoints(args.service.as_ref().map(|service| service.0.as_str())).await?;
    if args.output.is_json() {
        console.json(&listed);
        return Ok(Exit::Done);
    }
    let all = listed.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        console.talk("no checkpoints; `switchback checkpoint create SERVICE` makes one");
        return Ok(Exit::Done);
    }
    let header = ["CHECKPOINT", "SIZE", "CREATED", "RUNS", "NOTE"];
    let mut rows = vec![header.map(|name| (Look::Faint, name.to_owned())).to_vec()];
    for one in all {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let head = &one["head"];
        let bytes = figures::bytes(one["bytes"].as_u64().unwrap_or(0));
        let note = match one["trouble"].as_str() {
            Some(trouble) => (Look::Bad, trouble.to_owned()),
            None => (Look::Plain, text(&head["note"])),
        };
        let created = text(&head["created"]);
        let created = created.get(..19).unwrap_or(&created).replace('T', " ");
        rows.push(vec![
            (Look::Strong, text(&one["id"])),
            (Look::Plain, bytes),
            (Look::Plain, created),
            (Look::Plain, text(&head["runs"])),
            note,
        ]);
    }
    for line in columns(&rows, &[false, true], 0) {
        console.data(line);
    }
    Ok(Exit::Done)
}

async fn verify(client: &Client, console: &mut Console, args: Verify) -> Result<Exit, Trouble> {
    let json = args.output.is_json();
    let body = json!({ "checkpoint": args.id, "restore_test": args.restore_test });
    let found: Value = {
        let mut bar = Bar::new(console, json);
        client.work("/api/v1/checkpoints/verify", &body, &mut |now| bar.show(&now)).await?
    };
    let healthy = found["healthy"].as_bool();
    let exit = if healthy == Some(false) { Exit::Unhealthy } else { Exit::Done };
    if json {
        console.json(&found);
        return Ok(exit);
    }
    let contents = if found["contents"].is_null() { &found } else { &found["contents"] };
    let signs = console.signs();
    for part in contents["manifest"]["parts"].as_array().into_iter().flatten() {
        let bytes = figures::bytes(part["bytes"].as_u64().unwrap_or(0));
        let sum = part["sha256"].as_str().unwrap_or_default();
        let line = Line::new().and(Look::Good, signs.good).plain(" ");
        let line = line.plain(part["name"].as_str().unwrap_or_default()).pad_to(24).plain(&bytes);
        console.data(line.pad_to(36).and(Look::Faint, &format!("sha256:{sum}")));
    }
    if let Some(healthy) = healthy {
        let seconds = figures::duration(found["seconds"].as_f64().unwrap_or(0.0));
        let said = found["diagnosis"].as_str().unwrap_or_default();
        let line = match healthy {
            true => Line::new()
                .and(Look::Good, signs.good)
                .plain(&format!(" restored on the side, healthy after {seconds}: {said}")),
            false => Line::new()
                .and(Look::Bad, signs.bad)
                .plain(&format!(" restored on the side, not healthy after {seconds}: {said}")),
        };
        console.data(line);
        for line in found["output"].as_array().into_iter().flatten() {
            console.talk(format!("  {}", line.as_str().unwrap_or_default()));
        }
    }
    Ok(exit)
}

async fn restore(client: &Client, console: &mut Console, args: Restore) -> Result<Exit, Trouble> {
    let (service, json) = (args.service.0.to_string(), args.output.is_json());
    let body = json!({ "checkpoint": args.id });
    let how = How { verb: "restore", what: args.id, json, detach: args.detach };
    begun(client, console, service, &body, &how).await
}

/// Takes over a container that somebody else runs.
pub(super) async fn adopt(client: &Client, console: &mut Console, args: Adopt) -> Exit {
    let ended = adopted(client, console, args).await;
    trouble::ended(console, ended)
}

async fn adopted(client: &Client, console: &mut Console, args: Adopt) -> Result<Exit, Trouble> {
    let service = args.service.map(|service| service.0.to_string());
    let service = client.service(service.as_deref()).await?.service;
    let body = json!({ "container": args.container });
    let what = args.container.clone();
    let json = args.output.is_json();
    let how = How { verb: "adopt", what, json, detach: args.detach };
    let exit = begun(client, console, service, &body, &how).await?;
    if exit == Exit::Done && !json && !args.detach {
        let name = args.container;
        console
            .talk(format!("{name} still runs; when nobody asks it any more: docker stop {name}"));
    }
    Ok(exit)
}

/// What begins a rollout that is not a deploy, and how it is shown.
struct How {
    verb: &'static str,
    what: String,
    json: bool,
    detach: bool,
}

async fn begun(
    client: &Client,
    console: &mut Console,
    service: String,
    body: &Value,
    how: &How,
) -> Result<Exit, Trouble> {
    let json = how.json;
    let path = format!("/api/v1/services/{service}/{}", how.verb);
    let accepted: DeployAccepted = {
        let mut bar = Bar::new(console, json);
        client.work(&path, body, &mut |now| bar.show(&now)).await?
    };
    let DeployAccepted { rollout, revision, .. } = accepted;
    if json {
        console.json(&json!({
            "kind": "accepted", "service": service, "rollout": rollout, "revision": revision,
        }));
    }
    if how.detach {
        if !json {
            console.data(rollout.to_string());
        }
        return Ok(Exit::Done);
    }
    if !json {
        console.talk(format!("{service}: {} as revision {revision}   rollout {rollout}", how.what));
    }
    watch::to_the_end(client, console, &Followed { service, rollout, joined: false }, json).await
}

async fn remove(client: &Client, console: &mut Console, args: Rm) -> Result<Exit, Trouble> {
    for id in args.ids {
        console.talk(client.remove_checkpoint(&id).await?);
    }
    Ok(Exit::Done)
}

/// Shows what nobody needs any more, or frees it.
pub(super) async fn clean(client: &Client, console: &mut Console, args: &Clean) -> Exit {
    let ended = cleaned(client, console, args).await;
    trouble::ended(console, ended)
}

async fn cleaned(client: &Client, console: &mut Console, args: &Clean) -> Result<Exit, Trouble> {
    let body = json!({ "yes": args.yes });
    let clean: told::Clean = {
        let mut bar = Bar::new(console, args.output.is_json());
        client.work("/api/v1/clean", &body, &mut |now| bar.show(&now)).await?
    };
    let failed = clean.freed.iter().any(|one| one.trouble.is_some()) || !clean.notes.is_empty();
    let exit = if failed { Exit::Error } else { Exit::Done };
    if args.output.is_json() {
        console.json(&clean);
        return Ok(exit);
    }
    let rows: Vec<Vec<(Look, String)>> = clean
        .freed
        .iter()
        .map(|one| {
            let bytes = one.bytes.map_or_else(|| "-".to_owned(), figures::bytes);
            let (look, why) = match &one.trouble {
                Some(trouble) => (Look::Bad, format!("not freed: {trouble}")),
                None => (Look::Faint, one.why.clone()),
            };
            vec![
                (Look::Plain, one.kind.clone()),
                (Look::Strong, one.name.clone()),
                (Look::Plain, bytes),
                (look, why),
            ]
        })
        .collect();
    for line in columns(&rows, &[false, false, true], 0) {
        console.data(line);
    }
    for note in &clean.notes {
        console.talk(Line::new().and(Look::Bad, note));
    }
    let bytes = clean.freed.iter().filter(|one| one.trouble.is_none()).filter_map(|one| one.bytes);
    let bytes = figures::bytes(bytes.sum());
    let things = figures::plural(clean.freed.len() as u64, "thing");
    match (clean.freed.is_empty(), clean.done) {
        (true, _) => console.talk("nothing to free"),
        (false, true) => console.talk(format!("{things} freed, up to {bytes}")),
        (false, false) => {
            console.talk(format!("{things}, up to {bytes}; nothing was done: --yes frees it"));
        }
    }
    Ok(exit)
}
