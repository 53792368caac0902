//! `confirm`, `freeze` and `unfreeze`: what a person says apart from a rollout's own course.

use serde_json::{Value, json};

use super::client::Client;
use super::console::Console;
use super::exit::Exit;
use super::trouble::{self, Trouble};

/// Who sits here, for the record: the person behind `sudo` rather than root.
pub fn whoami() -> Option<String> {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let user = variable("SUDO_USER").or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    match (user, host) {
        (Some(user), "") => Some(user),
        (Some(user), host) => Some(format!("{user}@{host}")),
        (None, "") => None,
        (None, host) => Some(host.to_owned()),
    }
}

/// Says that a promotion stands.
pub async fn confirm(client: &Client, console: &mut Console, service: &str) -> Exit {
    let done = format!("{service}: confirmed, it stays");
    say(client, console, service, "confirm", json!({ "by": whoami() }), done).await
}

/// What is frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// All services.
    All,
    /// This one.
    Named(String),
    /// The only one that there is.
    Only,
}

impl Which {
    /// By what stands on the command line.
    #[must_use]
    pub fn of(service: Option<String>, all: bool) -> Self {
        match service {
            _ if all => Self::All,
            Some(service) => Self::Named(service),
            None => Self::Only,
        }
    }

    /// Its name; nothing where it is all of them.
    async fn name(self, client: &Client) -> Result<Option<String>, Trouble> {
        match self {
            Self::All => Ok(None),
            Self::Named(service) => Ok(Some(service)),
            Self::Only => match client.service(None).await {
                Ok(only) => Ok(Some(only.service)),
                Err(trouble) if trouble.exit == Exit::Usage => {
                    let sentence = format!("{}; --all takes all of them", trouble.sentence);
                    Err(Trouble { sentence, ..trouble })
                }
                Err(trouble) => Err(trouble),
            },
        }
    }
}

/// Lets no deploy begin.
pub async fn freeze(
    client: &Client,
    console: &mut Console,
    which: Which,
    reason: &str,
    until: Option<String>,
) -> Exit {
    let body = json!({ "reason": reason, "until": until, "by": whoami() });
    let service = match which.name(client).await {
        Ok(Some(service)) => service,
        Ok(None) => return for_all(client, console, "freeze", &body).await,
        Err(trouble) => return trouble::ended(console, Err(trouble)),
    };
    let done = format!("{service}: no deploy begins until `switchback unfreeze {service}`");
    let done = match &until {
        Some(until) if until.parse::<jiff::Timestamp>().is_ok() => {
            format!("{service}: no deploy begins until {until}")
        }
        Some(time) => format!("{service}: no deploy begins for {time}"),
        None => done,
    };
    say(client, console, &service, "freeze", body, done).await
}

/// Lets deploys begin again.
pub async fn unfreeze(client: &Client, console: &mut Console, which: Which) -> Exit {
    let body = json!({ "by": whoami() });
    let service = match which.name(client).await {
        Ok(Some(service)) => service,
        Ok(None) => return for_all(client, console, "unfreeze", &body).await,
        Err(trouble) => return trouble::ended(console, Err(trouble)),
    };
    let done = format!("{service}: deploys are allowed again");
    say(client, console, &service, "unfreeze", body, done).await
}

async fn for_all(client: &Client, console: &mut Console, verb: &str, body: &Value) -> Exit {
    let said = client.for_all(verb, body).await.map(|message| {
        console.data(message);
        Exit::Done
    });
    trouble::ended(console, said)
}

async fn say(
    client: &Client,
    console: &mut Console,
    service: &str,
    verb: &str,
    body: Value,
    done: String,
) -> Exit {
    let said = client.command(service, verb, &body).await.map(|_| {
        console.data(done);
        Exit::Done
    });
    trouble::ended(console, said)
}
