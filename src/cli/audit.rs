//! `switchback audit`: what was done, by whom, from where; and `switchback notify test`.

use super::client::Client;
use super::console::{Console, Line, Look, columns};
use super::exit::Exit;
use super::trouble::{self, Trouble};
use crate::admin::Tested;
use crate::telemetry::audit::Entry;

/// Which entries, and how they are shown.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Of this service.
    pub service: Option<String>,
    /// With this verb.
    pub verb: Option<String>,
    /// By somebody whose name holds this.
    pub by: Option<String>,
    /// Not before.
    pub since: Option<String>,
    /// The newest.
    pub limit: usize,
    /// As JSON, one object per line.
    pub json: bool,
}

/// Shows the audit log, oldest first.
pub async fn run(client: &Client, console: &mut Console, options: Options) -> Exit {
    let shown = show(client, console, &options).await;
    trouble::ended(console, shown)
}

async fn show(client: &Client, console: &mut Console, options: &Options) -> Result<Exit, Trouble> {
    let mut query = vec![("limit", options.limit.to_string())];
    let more = [
        ("service", &options.service),
        ("verb", &options.verb),
        ("by", &options.by),
        ("since", &options.since),
    ];
    query.extend(more.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    let entries: Vec<Entry> = client.audit(&query).await?;
    if options.json {
        for entry in &entries {
            console.json(entry);
        }
        return Ok(Exit::Done);
    }
    if entries.is_empty() {
        console.talk("nothing of that kind is in the audit log");
        return Ok(Exit::Done);
    }
    let head = ["WHEN", "WHO", "DID", "TO", "OUTCOME", "FROM", "WHAT"];
    let mut rows = vec![head.map(|text| (Look::Faint, text.to_owned())).to_vec()];
    rows.extend(entries.iter().map(row));
    for line in columns(&rows, &[], 0) {
        console.data(line);
    }
    Ok(Exit::Done)
}

fn row(entry: &Entry) -> Vec<(Look, String)> {
    let at = entry.at.get(..19).unwrap_or(&entry.at).replace('T', " ");
    let look = match entry.outcome.as_str() {
        "done" | "promoted" => Look::Good,
        _ => Look::Bad,
    };
    // Whoever says the same as the kernel needs not be told twice.
    let who = match &entry.says {
        Some(says) if says.split('@').next() == Some(&entry.who) => says.clone(),
        // The end of a rollout is nobody's deed; who began it says more.
        Some(says) if entry.verb == "rollout" => says.clone(),
        Some(says) => format!("{says} ({})", entry.who),
        None => entry.who.clone(),
    };
    let mut what: Vec<String> = Vec::new();
    what.extend(entry.rollout.map(|rollout| format!("rollout {rollout}")));
    what.extend(entry.revision.map(|revision| format!("revision {revision}")));
    what.extend(entry.image.clone());
    let short = |text: &String| text.chars().take(19).collect::<String>();
    what.extend(entry.digest.as_ref().map(short));
    what.extend(
        entry
            .commit
            .as_ref()
            .map(|commit| format!("commit {}", commit.chars().take(12).collect::<String>())),
    );
    if let Some(serde_json::Value::Object(asked)) = &entry.asked {
        // What the rollout says already is left out.
        let fields = asked.iter().filter(|(name, _)| !["image", "tag"].contains(&name.as_str()));
        what.extend(fields.map(|(name, value)| match value.as_str() {
            Some(text) => format!("{name} {text}"),
            None => format!("{name} {value}"),
        }));
    }
    what.extend(entry.detail.clone());
    vec![
        (Look::Faint, at),
        (Look::Strong, who),
        (Look::Plain, entry.verb.clone()),
        (Look::Plain, entry.service.clone().unwrap_or_default()),
        (look, entry.outcome.replace('_', " ")),
        (Look::Faint, entry.from.clone()),
        (Look::Plain, what.join(", ")),
    ]
}

/// Sends a message that says it is a test.
pub async fn notify_test(
    client: &Client,
    console: &mut Console,
    name: Option<&str>,
    json: bool,
) -> Exit {
    let tested = client.notify_test(name).await.map(|tested| told(console, &tested, json));
    trouble::ended(console, tested)
}

fn told(console: &mut Console, tested: &[Tested], json: bool) -> Exit {
    if json {
        console.json(&tested);
    } else {
        let signs = console.signs();
        for one in tested {
            console.data(match &one.trouble {
                None => Line::new()
                    .and(Look::Good, signs.good)
                    .plain(&format!(" {}: the message was taken", one.name)),
                Some(why) => {
                    Line::new().and(Look::Bad, signs.bad).plain(&format!(" {}: {why}", one.name))
                }
            });
        }
    }
    if tested.iter().all(|one| one.trouble.is_none()) { Exit::Done } else { Exit::Error }
}
